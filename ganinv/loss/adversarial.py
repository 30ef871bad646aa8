"""The adversarial games and their gradient penalties, on images or codes alike.

Sources: Goodfellow et al., arXiv 1406.2661 (non-saturating); Arjovsky et al., arXiv 1701.07875
(critic differences); Gulrajani et al., arXiv 1704.00028, eq. 3 (gradient penalty); Mescheder et
al., "Which Training Methods for GANs do actually Converge?", arXiv 1801.04406, eq. 9 (R1).

    logits [N,1] or [N], higher = more real
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


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


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """(||grad D(x_i)||_2 - 1)^2 at x_i = share_i real_i + (1 - share_i) fake_i, [N].

    Differentiable in D's weights.

    Args:
        critic: D.
        real: [N,...].
        fake: [N,...].
        share: [N] in [0,1].
    """
    share = share.view(-1, *[1] * (real.ndim - 1))
    between = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square()


def r1_penalty(real: Tensor, x: Tensor) -> Tensor:
    """||grad_x D(x)||^2 of every sample, [N]; times gamma/2 it is R1. Differentiable.

    Args:
        real: D's logits for x; sample i must depend on x[i] alone.
        x: [N,...], requires grad.
    """
    (gradient,) = torch.autograd.grad(real.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)
