"""A perceptual distance over any network with stages: LPIPS without its learned layer weights.

Source: Zhang et al., arXiv 1801.03924, eq. 1 with w_l = 1.

    y_hat, y = features of stage l, each pixel's channel vector scaled to unit length
    d(x_hat, x) = sum over l of mean over pixels of ||y_hat - y||^2     [B]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ganinv.core.op.dense import full
from ganinv.loss.term import Term


class Staged(Protocol):
    """A network with feature maps at several resolutions."""

    def stages(self, image: Tensor) -> list[Tensor]:
        """image [B,3,H,W] in [-1,1] -> maps [B,Cl,hl,wl]."""
        ...


class Perceptual(Term):
    """The distance above.

    Args:
        weight: factor in the total.
        backbone: a network whose `stages(image)` takes [B,3,H,W] in [-1,1]; it is frozen.
    """

    reads = ("x_hat", "x")
    backbone: nn.Module

    def __init__(self, *, weight: float, backbone: nn.Module) -> None:
        super().__init__(weight=weight)
        self.backbone = backbone.eval().requires_grad_(False)

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,3,H,W] -> [B]; no gradient reaches the target x."""
        return self.compare(x_hat, self.remember(x))

    @torch.no_grad()
    def remember(self, x: Tensor) -> list[Tensor]:
        """x [B,3,H,W] -> y, one [B,Cl,hl,wl] a stage."""
        network: Staged = self.backbone  # type: ignore[assignment]
        return [_unit(y) for y in network.stages(x)]

    def compare(self, x_hat: Tensor, remembered: Sequence[Tensor]) -> Tensor:
        """x_hat [B,3,H,W] against y -> [B]."""
        network: Staged = self.backbone  # type: ignore[assignment]
        stages = zip(network.stages(x_hat), remembered, strict=True)
        return torch.stack(
            [(_unit(y_hat) - y).square().sum(1).mean((1, 2)) for y_hat, y in stages]
        ).sum(0)


def _unit(y: Tensor) -> Tensor:
    """Unit length along the channels; a vector of zeros stays zero, with a finite gradient."""
    y = full(y)
    return y * (y.square().sum(1, keepdim=True) + 1e-10).rsqrt()
