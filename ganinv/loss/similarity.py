"""Similarity: the cosine distance of two images under a network that embeds whole images.

Source: Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", arXiv 2102.02766, sec.
4: pSp's identity term where there are no faces, with MoCo v2 in place of ArcFace
(`backbone/moco.py`); weight 0.5 in the released commands.

Differs from the released code in: the target is embedded once, without a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganinv.loss.term import Term


class Similarity(Term):
    """1 - <r(x_hat), r(x)>, [B].

    Args:
        weight: factor in the total.
        backbone: r, images [B,3,H,W] in [-1,1] -> embeddings [B,E] of unit length; it is frozen.
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
        return 1 - (self.backbone(x_hat) * remembered[0]).sum(1)
