"""What a metric is: it measures each image as it comes, and finishes on the rows of all images.

    rows = metric(sample)            name -> [B] or [B,F], of each image alone
    values = metric.compute(rows)    column -> number, of the rows [N] or [N,F] of the whole set

Whoever calls keeps the rows and joins them in the order of the images, over batches, processes and
restarts. A metric keeps nothing between two calls and knows of no rank, so that its numbers are
those of one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class Sample:
    """B images and what was made of them."""

    x: Tensor  # [B,3,H,W] in [-1,1]
    x_hat: Tensor  # [B,3,H,W] in [-1,1], its reconstruction as it would be saved: of 8 bits
    wp: Tensor | None = None  # [B,L,D], its code
    attributes: Sequence[Any] | None = None  # B records of what is known of each image
    edits: Mapping[str, Tensor] = field(default_factory=dict)  # name -> [B,3,H,W]

    def has(self, name: str) -> bool:
        """Whether this entry is there."""
        value = getattr(self, name)
        return value is not None and len(value) > 0


class Metric(nn.Module):
    """One or more columns of the evaluation's table.

    Args:
        higher_is_better: column -> whether larger numbers are the better ones.
    """

    needs: tuple[str, ...] = ("x", "x_hat")  # entries of the sample
    protocol: Mapping[str, str] = {}  # column -> how it is measured, where papers differ

    def __init__(self, higher_is_better: dict[str, bool]) -> None:
        super().__init__()
        self.higher_is_better = higher_is_better

    def protocol_at(self, size: Sequence[int]) -> dict[str, str]:
        """column -> how it is measured, of images of (H, W) px."""
        px = f"{size[0]} x {size[1]} px"
        return {column: f"{words}, {px}" for column, words in self.protocol.items()}

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """The rows of B images: columns [B], and whatever [B,F] `compute` needs besides."""
        raise AssertionError(f"{type(self).__name__} measures nothing")

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """The columns of the whole set, from the rows of all its images in order: here the mean of
        each; NaN where there are no images."""
        return {name: float(rows[name].double().mean()) for name in self.higher_is_better}
