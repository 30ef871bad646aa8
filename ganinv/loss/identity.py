"""Identity: the cosine distance of two faces under a face-recognition network (pSp eq. 4).

Differs from the released code in: the target is embedded once, without a graph (released: three
embeddings a step, ArcFace's weights collecting gradients); images that are not 256x256 are refused.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain
from ganinv.loss.term import Term

SIZE = 256  # px of the aligned faces
CROP = (slice(35, 223), slice(32, 220))  # rows, columns of the face in them
FACE = 112  # px that ArcFace reads


class Identity(Term):
    """1 - cos(f(x_hat), f(x)), [B], f = ArcFace on the face's crop.

    Args:
        weight: factor in the total.
        backbone: faces [B,3,112,112] in [-1,1] -> embeddings [B,E] of unit length; it is frozen.
    """

    on = "image"

    def __init__(self, *, weight: float, backbone: nn.Module) -> None:
        super().__init__(weight=weight)
        self.backbone = backbone.eval().requires_grad_(False)

    def embed(self, image: Tensor) -> Tensor:
        """image [B,3,256,256] in [-1,1] -> [B,E] of unit length.

        Raises:
            ConfigError: the images are of another size.
        """
        if image.shape[-2:] != (SIZE, SIZE):
            raise ConfigError(
                explain(
                    f"Identity was given images of {image.shape[-2]}x{image.shape[-1]} px",
                    f"aligned faces of {SIZE}x{SIZE} px, of which it crops a fixed part",
                    "train on such faces, or leave the term out (loss.identity=null)",
                )
            )
        face = F.adaptive_avg_pool2d(image[:, :, CROP[0], CROP[1]], FACE)
        embedding: Tensor = self.backbone(face)
        return embedding

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,3,256,256] -> [B]; no gradient reaches the target x."""
        with torch.no_grad():
            target = self.embed(x)
        return 1 - (self.embed(x_hat) * target).sum(1)
