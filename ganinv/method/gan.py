"""StyleGAN2 training: the generator that the inversion methods then hold fixed.

Source: Karras et al., arXiv 1912.04958: non-saturating loss, lazy R1 (sec. 4.1, app. B), and the
running average of the generator (Yazici et al., arXiv 1806.04498) with NVIDIA's half-life ramp-up.

    G  generator z -> w -> wp -> x_hat      D  discriminator x -> score      G_ema  average of G
    L_G = mean softplus(-D(G(z)))
    L_D = mean softplus(D(G(z))) + mean softplus(-D(x))
    R1  = gamma/2 * mean_b |grad_x D(x_b)|^2,  every `reg_interval` steps, times `reg_interval`

Differs from the released code in: no path-length regularisation, no style mixing, no adaptive
augmentation; R1 is always computed in float32. One kimg is a thousand real images seen.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.utils import make_grid

from ganinv.core.command import entry, override
from ganinv.core.image import to_unit
from ganinv.core.interface import Batch
from ganinv.core.latent import repeat_w
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.loss.adversarial import logistic, non_saturating, r1_penalty
from ganinv.loss.term import Losses
from ganinv.method.base import Method, OptimizerFactory
from ganinv.metric.metric import Metric, Sample

GRID_SAMPLES = 64


def lazy(make: OptimizerFactory, interval: int) -> OptimizerFactory:
    """Adam with its rates corrected for a step that is taken in two parts every `interval` steps:
    lr -> c lr, beta -> beta^c with c = interval / (interval + 1) (arXiv 1912.04958, app. B)."""
    c = interval / (interval + 1)
    if not isinstance(make, partial):
        return make
    rates = dict(make.keywords)
    betas = tuple(float(beta) ** c for beta in rates.pop("betas", (0.9, 0.999)))
    return partial(make.func, **{**rates, "lr": rates["lr"] * c, "betas": betas})


class GAN(Method):
    """Train a StyleGAN2 on images.

    Args:
        generator: a fresh (or earlier) generator; trained.
        discriminator: its discriminator; trained.
        optimizer: Adam factory for both.
        r1_gamma: gamma of R1.
        reg_interval: steps between R1 steps.
        ema_kimg: half-life of the average, in thousands of images.
        ema_rampup: the half-life is at most this share of the images seen so far.
        w_avg_beta: decay of the mapping network's running mean of w.
        fid: the metric of validation: as many samples of G_ema against the validation images; None
            leaves it out, and with it the best checkpoint.
        seed, micro_batches, clip_norm, max_nonfinite: as `Method`.
    """

    G: StyleGAN2Generator
    D: nn.Module
    G_ema: StyleGAN2Generator

    def __init__(
        self,
        *,
        generator: StyleGAN2Generator,
        discriminator: nn.Module,
        optimizer: OptimizerFactory,
        r1_gamma: float,
        reg_interval: int,
        ema_kimg: float,
        ema_rampup: float,
        w_avg_beta: float,
        fid: Metric | None,
        seed: int,
        micro_batches: int,
        clip_norm: float | None,
        max_nonfinite: int,
    ) -> None:
        super().__init__(
            seed=seed, micro_batches=micro_batches, clip_norm=clip_norm, max_nonfinite=max_nonfinite
        )
        self.r1_gamma, self.reg_interval = r1_gamma, reg_interval
        self.ema_kimg, self.ema_rampup, self.w_avg_beta = ema_kimg, ema_rampup, w_avg_beta
        layout = {"memory_format": torch.channels_last}  # the fast one for these convolutions
        self.add_player("G", generator.to(**layout), optimizer)
        self.add_player("D", discriminator.to(**layout), lazy(optimizer, reg_interval))
        self.G_ema = copy.deepcopy(generator).eval().requires_grad_(False)
        self.fid = fid
        self._rows: dict[str, list[Tensor]] = {}  # of the validation that is under way
        if fid is not None:
            self.add_frozen("fid", fid)
            (self.monitor,) = fid.higher_is_better

    def step(self, x: Tensor, batch: Batch) -> None:
        """G, then D on reals x and new fakes, then (lazily) R1, then the average."""
        position, batch_size = batch["position"], self.global_batch(len(x))
        x = x.to(memory_format=torch.channels_last)
        w = self.descend("G", self.loss_G, position)
        self.descend("D", self.loss_D, x, position)
        if (self.images_seen // batch_size) % self.reg_interval == 0:
            self.descend("D", self.loss_R1, x)
        self.average(w.mean(0), batch_size)

    def loss_G(self, position: Tensor) -> tuple[Losses, Tensor]:
        """softplus(-D(G(z))); name -> (weight, [B]), and w [B,D]."""
        x_hat, w = self.fake("G", position)
        return {"adversarial": (1, non_saturating(self.D(x_hat)))}, w

    def loss_D(self, x: Tensor, position: Tensor) -> Losses:
        """softplus(D(G(z))) + softplus(-D(x)); name -> (weight, [B])."""
        with torch.no_grad():
            x_hat, _ = self.fake("D", position)
        fake, real = self.D(x_hat), self.D(x)
        return {
            "adversarial": (1, logistic(real, fake)),
            "score_fake": (0, fake),
            "score_real": (0, real),
        }

    def loss_R1(self, x: Tensor) -> Losses:
        """reg_interval * gamma/2 * |grad_x D(x)|^2; name -> (weight, [B])."""
        return {"r1": (self.reg_interval * self.r1_gamma / 2, r1_penalty(self.D, x))}

    def fake(self, purpose: str, position: Tensor) -> tuple[Tensor, Tensor]:
        """x_hat [B,3,R,R] of fresh z [B,Z] and noise, a pair for each place in the stream, and its
        w [B,D]."""
        w = self.G.mapping(self.randn(f"z_{purpose}", position, self.G.z_dim))
        wp = repeat_w(w, self.G.num_ws)
        seeds = self.seeds(f"n_{purpose}", position)
        return self.G.synthesis(wp, noise="random", seeds=seeds), w

    @torch.no_grad()
    def average(self, w_mean: Tensor, batch_size: int) -> None:
        """G_ema <- beta G_ema + (1 - beta) G, with beta = 0.5^(batch / half-life in images);
        w_avg moves towards the mean w of the step; neither moves in a step that is skipped."""
        self.reduce_mean([w_mean])
        skip = self.skipped.left_out(w_mean.device)
        w_avg = self.G.w_avg.lerp(w_mean, 1 - self.w_avg_beta)
        self.G.w_avg.copy_(torch.where(skip, self.G.w_avg, w_avg))
        half_life = min(self.ema_kimg * 1000, self.images_seen * self.ema_rampup)
        beta = 0.5 ** (batch_size / max(half_life, 1e-8))
        ours: list[Tensor] = list(self.G_ema.parameters())
        way = torch._foreach_sub(list(self.G.parameters()), ours)
        torch._foreach_mul_(way, torch.where(skip, 0.0, 1 - beta))
        torch._foreach_add_(ours, way)
        for mine, new in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            mine.copy_(new)

    @torch.no_grad()
    def sample(self, position: Tensor) -> Tensor:
        """Images of G_ema [N,3,R,R] in about [-1,1], one for each number [N], always the same."""
        w = self.G_ema.mapping(self.randn("sample", position, self.G.z_dim))
        return self.G_ema.synthesis(repeat_w(w, self.G.num_ws), noise="const")

    def validate(self, batch: Batch, batch_idx: int) -> None:
        """Show the metric a sample for each validation image; draw the first samples."""
        samples = self.sample(batch["position"])
        if self.fid is not None:
            measured = self.fid(Sample(to_unit(batch["image"]), samples))
            for name, rows in measured.items():
                self._rows.setdefault(name, []).append(rows)
        if batch_idx == 0:
            drawn = self.sample(torch.arange(GRID_SAMPLES)).float().cpu().clamp(-1, 1)
            self.grid = make_grid(drawn / 2 + 0.5, nrow=8)

    def on_validation_epoch_end(self) -> None:
        """The metric of the whole set."""
        rows = {name: torch.cat(parts) for name, parts in self._rows.items()}
        self._rows = {}
        if self.trainer.world_size > 1:
            gather = self.trainer.strategy.all_rows  # type: ignore[attr-defined]
            rows = {name: gather(part) for name, part in rows.items()}
        self.validation = self.fid.compute(rows) if self.fid is not None else {}

    def next_commands(self, checkpoint: str) -> list[str]:
        """Write the averaged generator beside the checkpoint and say how to use it."""
        path = Path(checkpoint).with_name("generator.safetensors")
        save_bundle(path, self.G_ema, {"kimg": self.images_seen / 1000, "seed": self.seed}, self.D)
        weights = override("generator.weights", path)
        return [f"{entry('train')} generator=stylegan2 {weights}"]
