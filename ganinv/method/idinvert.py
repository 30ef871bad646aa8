"""IDInvert: an encoder trained against the GAN's own discriminator, guided by the image domain.

Source: Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv 2004.00049, sec. 3.1.

    x  [B,3,H,W]  image        wp [B,L,D] = E(x), absolute        x_hat = G(wp)
    D  the discriminator that was trained with G, fine-tuned here

    L_E = |x - x_hat|^2 + vgg |phi(x) - phi(x_hat)|^2 + adversarial A_E(D(x_hat))           eq. 4
    L_D = A_D(D(x), D(x_hat)) + P                                                          eq. 3

    gan_loss  A_E                   A_D                                    P
    wgan_gp           -D(x_hat)             D(x_hat) - D(x)                        gamma (|dD|-1)^2
    wgan_r1           -D(x_hat)             D(x_hat) - D(x)                        gamma/2 |dD(x)|^2
    logistic_r1       softplus(-D(x_hat))   softplus(D(x_hat)) + softplus(-D(x))   gamma/2 |dD(x)|^2

wgan_gp takes its gradient at random points between x and x_hat (arXiv 1704.00028); the paper
writes wgan_r1; the released code trains logistic_r1 with adversarial = 0.08. The rates of both
players decay as 0.8^(images seen / `decay_every`).

Differs from the released code in: D moves on the x_hat that E was just trained on, which saves a
forward pass of E and G a step and moves E's running statistics once; noise is the generator's
stored one; mirroring is decided once an image. By default gan_loss is wgan_gp.
`init_std_scale`, off by default, is ours.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Batch, Generator
from ganinv.core.latent import repeat_w
from ganinv.core.seed import derive_seed, rand_rows, randn_rows
from ganinv.discriminator.stylegan import StyleGANDiscriminator
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer.load import load_discriminator
from ganinv.loss.adversarial import (
    gradient_penalty,
    logistic,
    non_saturating,
    r1_penalty,
    wgan_critic_loss,
    wgan_generator_loss,
)
from ganinv.method.base import OptimizerFactory
from ganinv.method.inverting import EncoderMethod
from ganinv.optimizer.schedule import set_lr_factor

Form = Literal["wgan_gp", "wgan_r1", "logistic_r1"]
CLASSES = {c.__name__: c for c in (StyleGAN2Discriminator, StyleGANDiscriminator)}


def discriminator_of(weights: str) -> nn.Module:
    """The discriminator in the generator's file, or in one of its own.

    Raises:
        WeightsMissing, WeightsError: see `load_discriminator`.
    """
    found = load_discriminator(weights=weights, origin=None)
    return found.build(CLASSES[found.kind])


@torch.no_grad()
def spread_of(generator: Generator, samples: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [L,D] of wp over samples of z, the same in every run."""
    z = randn_rows(
        [derive_seed("spread of w")], (samples, generator.z_dim), generator.w_avg.device
    )[0]
    wp = repeat_w(generator.mapping(z), generator.num_ws)
    return wp.mean(0), wp.std(0)


class IDInvert(EncoderMethod):
    """IDInvert; see the module. Further arguments as `EncoderMethod`.

    Args:
        optimizer_D: factory of D's optimizer.
        discriminator_weights: the file D starts from, as `generator.weights`.
        gan_loss: the game; see the table.
        adversarial_weight: factor of A_E.
        gamma: of the penalty, which is taken every step.
        decay_every: images in which the rates fall to 0.8 of themselves; None: constant rates.
        init_std_scale: E's codes start as w's mean and this many deviations of it; None: as N(0,1),
            the released start, far from a w that is distributed otherwise (docs/LOG.md).
    """

    D: nn.Module

    def __init__(
        self,
        *,
        optimizer_D: OptimizerFactory,  # noqa: N803
        discriminator_weights: str,
        gan_loss: Form,
        adversarial_weight: float,
        gamma: float,
        decay_every: int | None,
        init_std_scale: float | None,
        **rest: Any,
    ) -> None:
        super().__init__(start_from_w_avg=False, **rest)
        if gan_loss not in get_args(Form):
            raise ConfigError(
                explain(
                    f"method.gan_loss={gan_loss}",
                    f"one of {', '.join(get_args(Form))}",
                    "choose one; ganinv/method/idinvert.py says what they are",
                )
            )
        self.form, self.adversarial_weight = gan_loss, adversarial_weight
        self.gamma, self.decay_every = gamma, decay_every
        if init_std_scale is not None:
            mean, deviation = spread_of(self.G)
            self.E.start_codes(mean, init_std_scale * deviation)  # type: ignore[operator]
        layout = {"memory_format": torch.channels_last}
        self.add_player("D", discriminator_of(discriminator_weights).to(**layout), optimizer_D)

    def step(self, x: Tensor, batch: Batch) -> None:
        """E, then D on x and on E's reconstructions."""
        position = batch["position"]
        if self.decay_every is not None:
            for player in self.player_names:
                set_lr_factor(self._optimizer(player), 0.8 ** (self.images_seen / self.decay_every))
        self.made: list[Tensor] = []
        with self.play("E"):
            chunks = self.chunks(self.encoder_input(batch, x), x, position)
            self.descend("E", (self.loss_E(*chunk) for chunk in chunks))
        x_hat = torch.cat(self.made)
        with self.play("D"):
            self.descend("D", (self.loss_D(*chunk) for chunk in self.chunks(x, x_hat, position)))

    def loss_E(self, s: Tensor, x: Tensor, position: Tensor) -> Tensor:
        """L_E, the mean over the images of a chunk."""
        seeds = self.seeds("noise", position)
        x_hat = self.model.render(self.encode(s), x.shape[-2:], self.noise, seeds)
        self.made.append(x_hat.detach())
        raised = non_saturating if self.form == "logistic_r1" else wgan_generator_loss
        adversarial = raised(self.D(x_hat))  # [B]
        self.log_mean("adversarial", adversarial)
        values = self.terms.image(x_hat, x)
        return self.log_and_sum(values) + self.adversarial_weight * adversarial.mean()

    def loss_D(self, x: Tensor, x_hat: Tensor, position: Tensor) -> Tensor:
        """L_D, the mean over the images of a chunk."""
        x = x.detach().requires_grad_(self.form != "wgan_gp")
        real, fake = self.D(x), self.D(x_hat)
        game = logistic if self.form == "logistic_r1" else wgan_critic_loss
        loss = game(real, fake)
        if self.form == "wgan_gp":
            share = rand_rows(self.seeds("between", position), x.device)
            penalty = self.gamma * gradient_penalty(self.D, x, x_hat, share)
        else:
            penalty = self.gamma / 2 * r1_penalty(real, x)
        for name, value in {"score_real": real, "score_fake": fake, "penalty": penalty}.items():
            self.log_mean(f"D/{name}", value)
        self.log_mean("D/adversarial", loss)
        return (loss + penalty).mean()
