"""The adversarial games and their gradient penalties, on images or codes alike.

Sources: Goodfellow et al., arXiv 1406.2661 (non-saturating); Arjovsky et al., arXiv 1701.07875
(critic differences); Gulrajani et al., arXiv 1704.00028, eq. 3 (gradient penalty); Mescheder et
al., "Which Training Methods for GANs do actually Converge?", arXiv 1801.04406, eq. 9 (R1).

    logits [N,1] or [N], higher = more real

Penalties are always taken in float32, whatever the run's precision: in bfloat16 a squared slope is
a third off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.op.dense import full

Critic = Callable[[Tensor], Tensor]


def non_saturating(fake: Tensor) -> Tensor:
    """softplus(-D(fake)) = -log sigmoid(D(fake)), what the generating side descends; [N]."""
    return F.softplus(-fake.flatten())


def logistic(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-D(real)) + softplus(D(fake)), what D descends; [N]."""
    return F.softplus(-real.flatten()) + F.softplus(fake.flatten())


def wgan_generator_loss(fake: Tensor) -> Tensor:
    """-D(fake), what the generating side descends against a critic; [N]."""
    return -fake.flatten()


def wgan_critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """D(fake) - D(real), what a critic descends; [N]."""
    return fake.flatten() - real.flatten()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """(||grad D(x_i)||_2 - 1)^2 at x_i = share_i real_i + (1 - share_i) fake_i, [N].

    Differentiable in D's weights.

    Args:
        critic: D.
        real: [N,...].
        fake: [N,...].
        share: [N] in [0,1].
    """
    share = share.view(-1, *[1] * (real.ndim - 1))
    return (_slope(critic, share * real + (1 - share) * fake).norm(dim=1) - 1).square()


def r1_penalty(critic: Critic, x: Tensor) -> Tensor:
    """||grad_x D(x)||^2 of every sample, [N]; times gamma/2 it is R1.

    Differentiable in D's weights.

    Args:
        critic: D; its logit i must depend on x[i] alone.
        x: real samples [N,...].
    """
    return _slope(critic, x).square().sum(1)


def _slope(critic: Critic, x: Tensor) -> Tensor:
    """grad_x D(x), [N,K], in float32."""
    with torch.autocast(x.device.type, enabled=False):
        x = full(x.detach()).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return slope.flatten(1)


# ------------------------------------------------------------------ games


@dataclass(frozen=True)
class Game:
    """A game of a generating side against D: what each side descends, and what D pays, each [N]."""

    generator_loss: Callable[[Tensor], Tensor]  # of D(fake)
    critic_loss: Callable[[Tensor, Tensor], Tensor]  # of D(real) and D(fake)
    penalty: Callable[[Critic, Tensor, Tensor, Tensor], Tensor]  # of D, real, fake, share; x gamma


def _half_r1(critic: Critic, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    return r1_penalty(critic, real) / 2


GAMES = {
    "wgan_gp": Game(wgan_generator_loss, wgan_critic_loss, gradient_penalty),
    "wgan_r1": Game(wgan_generator_loss, wgan_critic_loss, _half_r1),
    "logistic_r1": Game(non_saturating, logistic, _half_r1),
}
