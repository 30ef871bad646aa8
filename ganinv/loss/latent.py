"""Terms on the codes: pSp's norm (eq. 3), e4e's delta (eq. 4) and its latent adversary (eq. 3).

Sources: arXiv 2008.00951 and 2102.02766.

    wp [B,L,D] with w_avg added    layers 0...stage are opened (stage None: all)

Differs from the released code in: without a progressive schedule the delta and adversarial terms
cover all layers (released: the delta term is then silently absent).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganinv.loss.adversarial import non_saturating
from ganinv.loss.term import Critic, Term


class LatentNorm(Term):
    """||wp - w_avg||_F over the whole code, [B]."""

    reads = ("wp", "w_avg")

    def forward(self, wp: Tensor, w_avg: Tensor) -> Tensor:
        """wp [B,L,D], w_avg [D] -> [B]."""
        norm: Tensor = torch.linalg.vector_norm(wp - w_avg, dim=(1, 2))
        return norm


class Delta(Term):
    """Sum over opened i >= 1 of ||wp_i - wp_0||_p, [B].

    Args:
        weight: factor in the total.
        p: order of the norm.
    """

    reads = ("wp", "stage")

    def __init__(self, *, weight: float, p: float) -> None:
        super().__init__(weight=weight)
        self.p = p

    def forward(self, wp: Tensor, stage: int | None) -> Tensor:
        """wp [B,L,D] -> [B]."""
        opened = wp[:, : _count(wp, stage)]
        norms: Tensor = torch.linalg.vector_norm(opened[:, 1:] - opened[:, :1], self.p, dim=2)
        return norms.sum(1)


class LatentAdversarial(Term):
    """Mean over opened i of softplus(-D(wp_i)), [B]: the encoder's side of the game with D."""

    reads = ("wp", "stage", "critic")

    def forward(self, wp: Tensor, stage: int | None, critic: Critic) -> Tensor:
        """wp [B,L,D] -> [B]."""
        opened = wp[:, : _count(wp, stage)]
        logits = critic(opened.flatten(0, 1))
        return non_saturating(logits).reshape(opened.shape[:2]).mean(1)


def _count(wp: Tensor, stage: int | None) -> int:
    return wp.shape[1] if stage is None else min(stage + 1, wp.shape[1])
