"""What a metric is: a number an image, a number a set, or both.

x_hat, x   [B,3,H,W] in [-1,1], x_hat as it would be saved (rounded to 8 bits)
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Better = Literal["lower", "higher"]


class Metric(nn.Module):
    """One or more columns of the evaluation table.

    Args:
        better: column -> which direction is the better one.
    """

    def __init__(self, higher_is_better: dict[str, Better]) -> None:
        super().__init__()
        self.higher_is_better = higher_is_better

    def forward(self, x_hat: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Take in B images; the columns known of each image, [B]."""
        raise AssertionError(f"{type(self).__name__} measures nothing")

    def compute(self) -> dict[str, float]:
        """The columns that only the images taken in since the last call have together."""
        return {}
