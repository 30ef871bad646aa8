"""Identity: the cosine distance of two faces under a face-recognition network (pSp eq. 4).

Differs from the released code in: the target is embedded once, without a graph (released: three
embeddings a step, ArcFace's weights collecting gradients); where the face is, the dataset says
(released: rows 35 to 222, columns 32 to 219 of 256 x 256 px).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.loss.region import check_region_given, crop
from ganinv.loss.term import Term

FACE = 112  # px that ArcFace reads


class Identity(Term):
    """1 - cos(f(x_hat), f(x)), [B], f = ArcFace on the face's crop.

    Args:
        weight: factor in the total.
        region: (top, bottom, left, right) of the face in the aligned images, px.
        backbone: faces [B,3,112,112] in [-1,1] -> embeddings [B,E] of unit length; it is frozen.

    Raises:
        ConfigError: no region: the dataset has no aligned faces.
    """

    reads = ("x_hat", "x")

    def __init__(self, *, weight: float, region: Sequence[int] | None, backbone: nn.Module) -> None:
        super().__init__(weight=weight)
        check_region_given(region, "identity", "loss.identity=null")
        assert region is not None
        self.region = tuple(int(edge) for edge in region)
        self.backbone = backbone.eval().requires_grad_(False)

    def embed(self, image: Tensor) -> Tensor:
        """image [B,3,H,W] in [-1,1] -> [B,E] of unit length."""
        face = F.adaptive_avg_pool2d(crop(image, self.region), FACE)
        embedding: Tensor = self.backbone(face)
        return embedding

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,3,H,W] -> [B]; no gradient reaches the target x."""
        return self.compare(x_hat, self.remember(x))

    @torch.no_grad()
    def remember(self, x: Tensor) -> list[Tensor]:
        """x [B,3,H,W] -> its features [B,...]."""
        return [self.embed(x)]

    def compare(self, x_hat: Tensor, remembered: Sequence[Tensor]) -> Tensor:
        """x_hat [B,3,H,W] against them -> [B]."""
        return 1 - (self.embed(x_hat) * remembered[0]).sum(1)
