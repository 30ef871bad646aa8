"""e4e: an encoder whose codes stay close to W, so that they can be edited.

Source: Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", arXiv 2102.02766, sec.
4.

    x      [B,3,H,W]  image                   wp [B,L,D]  codes: layer 0 gets w, layer i w + delta_i
    x_hat  [B,3,H,W]  G(wp)                   D  latent discriminator: w [N,D] -> logit [N,1]
    stage  the last opened layer; those above it get w

    L_E   = l2, lpips, id of (x, x_hat)                                          as pSp
            + delta sum_i |delta_i|_2                                            eq. 4 (L_d-reg)
            + adversarial mean_i softplus(-D(wp_i))                              eq. 3
    L_D   = mean softplus(-D(w)) + mean softplus(D(wp_i)),  w = mapping(z), z ~ N(0,I)
    R1    = gamma/2 mean |grad_w D(w)|^2, every `r1_every` steps, times `r1_every`
    stage = 0 up to `progressive_start` images, then one more every `progressive_every` (sec. 4.2)

Weights are `loss.<term>.weight`. With `pool`, D sees the code of one opened layer of each image,
drawn at random, through a history of earlier codes (Shrivastava et al., arXiv 1612.07828); without,
that of layer 0.

Differs from the released code in: E steps before D and hands it its codes, which saves a forward
pass of the encoder a step (D then moves on the same codes; E sees D one step earlier); the
schedule counts images, not steps; D and the pools do not learn from
validation images; E's running statistics move once a step (released: twice, D's own pass of E too).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.interface import Batch
from ganinv.core.seed import derive_seed
from ganinv.discriminator.latent import CodePool
from ganinv.loss.adversarial import logistic, r1_penalty
from ganinv.loss.term import Losses
from ganinv.method.base import OptimizerFactory
from ganinv.method.inverting import EncoderMethod


class E4E(EncoderMethod):
    """e4e; see the module. Further arguments as `EncoderMethod`.

    Args:
        discriminator: makes D, given `w_dim`; trained.
        optimizer_D: factory of D's optimizer.
        r1_gamma: gamma.
        r1_every: steps between R1 steps.
        progressive_start: images seen when layer 1 opens; None opens all from the start.
        progressive_every: images between two layers.
        pool_size: codes that each history pool remembers, 0 for no pool. All ranks hold the same
            pools, filled from the images of all of them.
    """

    D: nn.Module
    gives = (*EncoderMethod.gives, "stage", "critic")

    def __init__(
        self,
        *,
        discriminator: Callable[..., nn.Module],
        optimizer_D: OptimizerFactory,  # noqa: N803
        r1_gamma: float,
        r1_every: int,
        progressive_start: int | None,
        progressive_every: int,
        pool_size: int,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.progressive_start, self.progressive_every = progressive_start, progressive_every
        self.add_player("D", discriminator(w_dim=self.G.w_dim), optimizer_D)
        self.pools = nn.ModuleList(
            CodePool(size=pool_size, w_dim=self.G.w_dim) for _ in ("real", "fake") if pool_size
        )

    @property
    def stage(self) -> int:
        """The last opened layer, a function of the images seen."""
        last = self.G.num_ws - 1
        if self.progressive_start is None:
            return last
        since = self.images_seen - self.progressive_start
        return 0 if since < 0 else min(last, 1 + since // self.progressive_every)

    def encoder_arguments(self) -> dict[str, Any]:
        """E's `stage`, as it is at present."""
        return {"stage": self.stage}

    def step(self, x: Tensor, batch: Batch) -> None:
        """E, then D on E's codes and fresh w, then (lazily) R1."""
        s, position = self.encoder_input(batch, x), batch["position"]
        wp = self.descend("E", self.loss_E, s, x, position)
        self.step_D(wp, position)

    def loss_E(self, s: Tensor, x: Tensor, position: Tensor) -> tuple[Losses, Tensor]:
        """L_E; name -> (weight, [B]), and wp [B,L,D] for D."""
        wp = self.w_avg + self.E(s, stage=self.stage)  # [B,L,D]
        x_hat = self.model.render(wp, x.shape[-2:], self.noise, self.seeds("noise", position))
        codes = {"wp": wp, "w_avg": self.w_avg, "stage": self.stage, "critic": self.D}
        return self.terms(x_hat=x_hat, x=x, **codes), wp

    def step_D(self, wp: Tensor, position: Tensor) -> None:
        """D descends L_D, and R1 in a step of its own."""
        real, fake = self.shown_to_D(wp, position)  # [B,D] each
        self.descend("D", self.loss_D, real, fake)
        if (self.images_seen // self.global_batch(len(position))) % self.r1_every == 0:
            self.descend("D", self.loss_R1, real)

    @torch.no_grad()
    def shown_to_D(self, wp: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """What D compares: w = mapping(z) and one opened layer's code of each image, [B,D] each."""
        real = self.G.mapping(self.randn("z", position, self.G.z_dim))  # [B,D]
        fake = wp[:, : self.stage + 1]  # [B,stage+1,D]
        if not self.pools:
            return real, fake[:, 0]
        shown = []
        for name, pool, codes in zip(("real", "fake"), self.pools, (real, fake), strict=True):
            everyone, mine = self.gather(codes)  # in the order of the stream
            assert isinstance(pool, CodePool)
            seed = derive_seed(self.seed, f"pool of {name} codes", self.images_seen)
            skip = self.skipped.left_out(everyone.device)
            shown.append(pool.query(everyone, seed, skip)[mine])
        return shown[0], shown[1]

    def loss_D(self, real: Tensor, fake: Tensor) -> Losses:
        """L_D; name -> (weight, [B])."""
        score_real, score_fake = self.D(real), self.D(fake)
        return {
            "adversarial": (1, logistic(score_real, score_fake)),
            "score_real": (0, score_real),
            "score_fake": (0, score_fake),
        }

    def loss_R1(self, real: Tensor) -> Losses:
        """r1_every * gamma/2 * |grad_w D(w)|^2; name -> (weight, [B])."""
        return {"r1": (self.r1_every * self.r1_gamma / 2, r1_penalty(self.D, real))}
