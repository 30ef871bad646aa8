"""IDInvert: an encoder trained against the GAN's own discriminator, guided by the image domain.

Source: Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv 2004.00049, sec. 3.1.

    x  [B,3,H,W]  image        wp [B,L,D] = E(x), absolute        x_hat = G(wp)
    D  the discriminator that was trained with G, fine-tuned here

    L_E = |x - x_hat|^2 + vgg |phi(x) - phi(x_hat)|^2 + adversarial A_E(D(x_hat))           eq. 4
    L_D = A_D(D(x), D(x_hat)) + P                                                          eq. 3

    gan_loss      A_E                   A_D                                    P
    wgan_gp       -D(x_hat)             D(x_hat) - D(x)                        gamma (|dD| - 1)^2
    wgan_r1       -D(x_hat)             D(x_hat) - D(x)                        gamma/2 |dD(x)|^2
    logistic_r1   softplus(-D(x_hat))   softplus(D(x_hat)) + softplus(-D(x))   gamma/2 |dD(x)|^2

wgan_gp takes its gradient at random points between x and x_hat (arXiv 1704.00028); the paper
writes wgan_r1; the released code trains logistic_r1 with adversarial = 0.08. The rates of both
players decay as 0.8^(images seen / `decay_every`).

Differs from the released code in: D moves on the x_hat that E was just trained on, which saves a
forward pass of E and G a step and moves E's running statistics once; noise is the generator's
stored one; mirroring is decided once an image. By default gan_loss is wgan_gp.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Batch
from ganinv.core.seed import rand_rows
from ganinv.discriminator.stylegan import StyleGANDiscriminator
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer.load import load_discriminator
from ganinv.loss.adversarial import GAMES
from ganinv.loss.term import Losses
from ganinv.method.base import OptimizerFactory
from ganinv.method.inverting import EncoderMethod

CLASSES = {c.__name__: c for c in (StyleGAN2Discriminator, StyleGANDiscriminator)}


def discriminator_of(weights: str) -> nn.Module:
    """The discriminator in the generator's file, or in one of its own.

    Raises:
        WeightsMissing, WeightsError: see `load_discriminator`.
    """
    found = load_discriminator(weights=weights, origin=None)
    return found.build(CLASSES[found.kind])


class IDInvert(EncoderMethod):
    """IDInvert; see the module. Further arguments as `EncoderMethod`.

    Args:
        optimizer_D: factory of D's optimizer.
        discriminator_weights: the file D starts from, as `generator.weights`.
        gan_loss: the game; see the table.
        adversarial_weight: factor of A_E.
        gamma: of the penalty, which is taken every step.
        decay_every: images in which the rates fall to 0.8 of themselves; None: constant rates.
    """

    D: nn.Module

    def __init__(
        self,
        *,
        optimizer_D: OptimizerFactory,  # noqa: N803
        discriminator_weights: str,
        gan_loss: str,
        adversarial_weight: float,
        gamma: float,
        decay_every: int | None,
        **rest: Any,
    ) -> None:
        super().__init__(start_from_w_avg=False, **rest)
        if gan_loss not in GAMES:
            raise ConfigError(
                explain(
                    f"method.gan_loss={gan_loss}",
                    f"one of {', '.join(GAMES)}",
                    "choose one; ganinv/method/idinvert.py says what they are",
                )
            )
        self.game, self.adversarial_weight = GAMES[gan_loss], adversarial_weight
        self.gamma, self.decay_every = gamma, decay_every
        layout = {"memory_format": torch.channels_last}
        critic = discriminator_of(discriminator_weights)
        height, width = self.model.input_size
        if (side := getattr(critic, "resolution", height)) != height or height != width:
            raise ConfigError(
                explain(f"images of {height} x {width} px with a discriminator of {side} px",
                        f"dataset.image_size=[{side},{side}]: D sees images as the encoder does",
                        "set it, or name another method.discriminator_weights")
            )  # fmt: skip
        self.add_player("D", critic.to(**layout), optimizer_D)

    def schedule(self, player: str) -> float:
        """0.8^(images seen / `decay_every`), for both players."""
        every = self.decay_every
        return 1.0 if every is None else float(0.8 ** (self.images_seen / every))

    def step(self, x: Tensor, batch: Batch) -> None:
        """E, then D on x and on E's reconstructions."""
        position = batch["position"]
        x_hat = self.descend("E", self.loss_E, self.encoder_input(batch, x), x, position)
        self.descend("D", self.loss_D, x, x_hat, position)

    def loss_E(self, s: Tensor, x: Tensor, position: Tensor) -> tuple[Losses, Tensor]:
        """L_E; name -> (weight, [B]), and x_hat [B,3,H,W] for D."""
        wp = self.E(s)  # [B,L,D]
        x_hat = self.model.render(wp, x.shape[-2:], self.noise, self.seeds("noise", position))
        losses: Losses = self.terms(x_hat=x_hat, x=x, wp=wp, w_avg=self.w_avg)
        adversarial = self.game.generator_loss(self.D(x_hat))  # [B]
        return losses | {"adversarial": (self.adversarial_weight, adversarial)}, x_hat

    def loss_D(self, x: Tensor, x_hat: Tensor, position: Tensor) -> Losses:
        """L_D; name -> (weight, [B])."""
        score_real, score_fake = self.D(x), self.D(x_hat)
        share = rand_rows(self.seeds("between", position), x.device)
        return {
            "adversarial": (1, self.game.critic_loss(score_real, score_fake)),
            "penalty": (self.gamma, self.game.penalty(self.D, x, x_hat, share)),
            "score_real": (0, score_real),
            "score_fake": (0, score_fake),
        }

    def validation_leaves_out(self) -> list[str]:
        """Also the adversarial term, since the scale of D's scores changes during training."""
        return [*super().validation_leaves_out(), "adversarial"]
