"""Similarity: the cosine distance of two images under a network that embeds whole images.

Source: Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", arXiv 2102.02766, sec.
4: pSp's identity term where there are no faces, with MoCo v2 in place of ArcFace
(`backbone/moco.py`); weight 0.5 in the released commands.

Differs from the released code in: the target is embedded once, without a graph.
"""

from __future__ import annotations

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
        with torch.no_grad():
            target = self.backbone(x)
        return 1 - (self.backbone(x_hat) * target).sum(1)
