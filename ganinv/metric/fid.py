"""The Fréchet distance between two sets of images, from torchmetrics, over a named backbone.

Source: Heusel et al., arXiv 1706.08500. Between the Gaussians of the features of both sets,

    FID = |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

Values compare only with values of the same backbone and the same number of images: fewer images
read higher, and nothing read here compares with an FID over Inception.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ganinv.metric.metric import Metric


class Features(Protocol):
    """A network with pooled features."""

    def features(self, image: Tensor) -> Tensor:
        """image [B,3,H,W] in [-1,1] -> [B,F]."""
        ...


class Pooled(nn.Module):
    """The backbone in the form torchmetrics asks for."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        side = torch.zeros(1, 3, 64, 64)
        self.num_features = self(side).shape[1]

    def forward(self, image: Tensor) -> Tensor:
        """[B,3,H,W] in [-1,1] -> [B,F]."""
        network: Features = self.backbone  # type: ignore[assignment]
        return network.features(image)


class FID(Metric):
    """One column of the whole set; over several ranks, of the images of all.

    Args:
        column: its name; say the backbone in it.
        backbone: a network with `features(image) -> [B,F]`; frozen.
    """

    def __init__(self, *, column: str, backbone: nn.Module) -> None:
        super().__init__({column: "lower"})
        self.column = column
        pooled = Pooled(backbone.eval().requires_grad_(False))
        self.distance = FrechetInceptionDistance(feature=pooled)

    @torch.no_grad()
    def forward(self, x_hat: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Take in both sides, [B,3,H,W] in [-1,1]; nothing is known of a single image."""
        self.distance.update(x_hat.clamp(-1, 1), real=False)
        self.distance.update(x, real=True)
        return {}

    def compute(self) -> dict[str, float]:
        """{column: FID of what was taken in}; NaN below two images, where it is not defined."""
        try:
            value = float(self.distance.compute())
        except RuntimeError as error:
            if "More than one sample" not in str(error):
                raise
            value = float("nan")
        self.distance.reset()
        return {self.column: value}
