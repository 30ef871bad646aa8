"""Squared distance in the features of a network: IDInvert's perceptual term.

Source: Zhu et al., arXiv 2004.00049, eq. 4, with phi = relu4_3 of VGG16 (`backbone/vgg16.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganinv.loss.term import Term


class Feature(Term):
    """Mean over all elements of (phi(x_hat) - phi(x))^2, [B].

    Args:
        weight: factor in the total; it belongs to the scale of the backbone's features.
        backbone: phi, images [B,3,H,W] in [-1,1] -> [B,...]; it is frozen.
    """

    reads = ("x_hat", "x")

    def __init__(self, *, weight: float, backbone: nn.Module) -> None:
        super().__init__(weight=weight)
        self.backbone = backbone.eval().requires_grad_(False)

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,3,H,W] -> [B]; no gradient reaches the target x."""
        return self.compare(x_hat, self.remember(x))

    @torch.no_grad()
    def remember(self, x: Tensor) -> list[Tensor]:
        """x [B,3,H,W] -> its features [B,...]."""
        return [self.backbone(x)]

    def compare(self, x_hat: Tensor, remembered: Sequence[Tensor]) -> Tensor:
        """x_hat [B,3,H,W] against them -> [B]."""
        return (self.backbone(x_hat) - remembered[0]).square().flatten(1).mean(1)
