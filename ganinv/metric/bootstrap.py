"""How far a number would move with other images: percentile bootstrap over the rows of images.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, sec. 13.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ganinv.core.seed import generator_of

DRAWS, LEVEL = 1000, 0.95


def interval(statistic: Callable[..., float], *rows: Tensor, seed: int = 0) -> tuple[float, float]:
    """The interval that holds the statistic of 95 % of 1000 resampled sets.

    Args:
        statistic: of rows [N] each; a set without a value, NaN, is left out.
        rows: [N] each, of the same images; resampled together.
        seed: of the draws.

    Returns:
        low and high; NaN where no set has a value.
    """
    random, count = generator_of(seed, "bootstrap"), len(rows[0])
    found = []
    for _ in range(DRAWS if count else 0):
        places = torch.randint(count, (count,), generator=random)
        value = statistic(*(row[places] for row in rows))
        found += [value] if math.isfinite(value) else []
    if not found:
        return math.nan, math.nan
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = torch.quantile(torch.tensor(found, dtype=torch.float64), edges).tolist()
    return low, high
