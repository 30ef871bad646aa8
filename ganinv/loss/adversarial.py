"""The non-saturating game and its gradient penalty, on images or codes alike.

Sources: Goodfellow et al., arXiv 1406.2661; Mescheder et al., "Which Training Methods for GANs do
actually Converge?", arXiv 1801.04406, eq. 9 (R1).

    logits [N,1] or [N], higher = more real
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def non_saturating(fake: Tensor) -> Tensor:
    """softplus(-D(fake)) = -log sigmoid(D(fake)), what the generating side descends; [N]."""
    return F.softplus(-fake.flatten())


def logistic(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-D(real)) + softplus(D(fake)), what D descends; [N]."""
    return F.softplus(-real.flatten()) + F.softplus(fake.flatten())


def r1_penalty(real: Tensor, x: Tensor) -> Tensor:
    """||grad_x D(x)||^2 of every sample, [N]; times gamma/2 it is R1. Differentiable.

    Args:
        real: D's logits for x; sample i must depend on x[i] alone.
        x: [N,...], requires grad.
    """
    (gradient,) = torch.autograd.grad(real.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)
