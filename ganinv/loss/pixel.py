"""Pixel distance: the reconstruction term of nearly every inversion paper (pSp eq. 1)."""

from __future__ import annotations

from torch import Tensor

from ganinv.loss.term import Term


class L2(Term):
    """Mean over channels and pixels of (x_hat - x)^2, x in [-1,1]; [B]."""

    reads = ("x_hat", "x")

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,C,H,W] -> [B]."""
        return (x_hat - x).square().mean((1, 2, 3))
