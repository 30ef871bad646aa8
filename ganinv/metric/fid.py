"""Fréchet distance and kernel distance (FID, KID) of two sets of images, over a named backbone.

Sources: Heusel et al., arXiv 1706.08500; Binkowski et al., arXiv 1801.01401. Of the features h
[N,F] and g [N,F] of both sets,

    FID = |mu_h - mu_g|^2 + tr(C_h + C_g - 2 (C_h C_g)^(1/2))            of their means, covariances
    KID = mean_{i!=j} k(h_i, h_j) + mean_{i!=j} k(g_i, g_j) - 2 mean_{ij} k(h_i, g_j)
          k(a, b) = (a . b / F + 1)^3, unbiased, of the whole sets

both from torchmetrics. Values compare only with values of the same backbone and, FID's, the same
number of images: fewer read higher, and nothing read here compares with an FID over Inception.
Their intervals are `bootstrap.around`.

KID differs from the papers' tables in: one estimate of all images (released: the mean over subsets
of 1000), as it is (tables often have 1000 times that).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_kernel, poly_mmd

from ganinv.metric.bootstrap import around
from ganinv.metric.metric import Metric, Sample

FID_DRAWS, KID_DRAWS = 50, 200  # resampled sets of an interval


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
        return {self.column: fid_of(rows["features_x"], rows["features_x_hat"])}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over images."""
        real, fake = rows["features_x"].double(), rows["features_x_hat"].double()
        return {
            self.column: around(
                self.compute(rows)[self.column],
                lambda places: frechet(real[places], fake[places]),
                [len(real)],
                draws=FID_DRAWS,
            )
        }


class KID(FID):
    """One column of the whole set. Arguments as `FID`."""

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """{column: KID of all rows [N,F]}; NaN below two images; below 0 by chance."""
        real, fake = rows["features_x"].double(), rows["features_x_hat"].double()
        return {self.column: float(poly_mmd(real, fake)) if len(real) > 1 else math.nan}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over images. An image that was drawn m times counts m times, but not against itself."""
        real, fake = rows["features_x"].double(), rows["features_x_hat"].double()
        same = poly_kernel(real, real) + poly_kernel(fake, fake)
        same.fill_diagonal_(0)
        cross = poly_kernel(real, fake)

        def drawn(places: Tensor) -> float:
            m = torch.bincount(places, minlength=len(real)).double()
            pairs = m.sum().square() - m.square().sum()
            return float((m @ same @ m) / pairs - 2 * (m @ cross @ m) / m.sum().square())

        value = self.compute(rows)[self.column]
        return {self.column: around(value, drawn, [len(real)], draws=KID_DRAWS)}


def fid_of(real: Tensor, fake: Tensor) -> float:
    """FID of features [N,F] and [M,F]; NaN below two images on either side."""
    if min(len(real), len(fake)) < 2:
        return math.nan
    given = nn.Identity()
    given.num_features = real.shape[1]  # type: ignore[assignment]
    distance = FrechetInceptionDistance(feature=given, sync_on_compute=False).to(real.device)
    distance.update(real, real=True)
    distance.update(fake, real=False)
    return float(distance.compute())


def frechet(real: Tensor, fake: Tensor) -> float:
    """The same of float64 features, for many sets: where there are fewer images than features it
    takes a small part of the time.

    With C = A^T A, tr (C_h C_g)^(1/2) is the sum of the singular values of A_h A_g^T [N,M].
    """
    if min(len(real), len(fake)) < 2:
        return math.nan
    roots, trace = [], 0.0
    for features in (real, fake):
        A = (features - features.mean(0)) / math.sqrt(len(features) - 1)
        trace += float(A.square().sum())
        roots.append(A if len(A) <= A.shape[1] else torch.linalg.qr(A, mode="r").R)
    means = (real.mean(0) - fake.mean(0)).square().sum()
    return float(means) + trace - 2 * float(torch.linalg.svdvals(roots[0] @ roots[1].T).sum())
