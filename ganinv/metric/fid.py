"""The Fréchet distance between two sets of images, from torchmetrics, over a named backbone.

Source: Heusel et al., arXiv 1706.08500. Between the Gaussians of the features of both sets,

    FID = |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

Values compare only with values of the same backbone and the same number of images: fewer images
read higher, and nothing read here compares with an FID over Inception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ganinv.metric.metric import Metric, Sample


class Features(Protocol):
    """A network with pooled features."""

    def features(self, image: Tensor) -> Tensor:
        """image [B,3,H,W] in [-1,1] -> [B,F]."""
        ...


class FID(Metric):
    """One column of the whole set, from the features of every image.

    Args:
        column: its name; say the backbone in it.
        backbone: a network with `features(image) -> [B,F]`; frozen.
    """

    def __init__(self, *, column: str, backbone: nn.Module) -> None:
        super().__init__({column: False})
        self.column, self.backbone = column, backbone.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """Features of both sides, float32 [B,F]; nothing is known of a single image."""
        network: Features = self.backbone  # type: ignore[assignment]
        sides = {"x": sample.x, "x_hat": sample.x_hat.clamp(-1, 1)}
        return {f"features_{name}": network.features(image) for name, image in sides.items()}

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """{column: FID of all rows [N,F]}; NaN below two images, where it is not defined."""
        real, fake = rows["features_x"], rows["features_x_hat"]  # [N,F]
        if len(real) < 2:
            return {self.column: float("nan")}
        given = nn.Identity()
        given.num_features = real.shape[1]  # type: ignore[assignment]
        distance = FrechetInceptionDistance(feature=given, sync_on_compute=False).to(real.device)
        distance.update(real, real=True)
        distance.update(fake, real=False)
        return {self.column: float(distance.compute())}
