"""How far a number would move with other images: the bootstrap over the rows of images.

    interval   of the numbers of 1000 resampled sets, those from 2.5 to 97.5 %
    around     the number +- 1.96 standard deviations of those of resampled sets: where a set of
               fewer distinct images reads higher (FID), or where a number takes long

Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, sec. 13.3 and 12.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ganinv.core.seed import generator_of

DRAWS, LEVEL = 1000, 0.95
DEVIATIONS = 1.96  # of a normal distribution on both sides of its mean hold LEVEL


def interval(statistic: Callable[..., float], *rows: Tensor, seed: int = 0) -> tuple[float, float]:
    """The interval that holds the statistic of 95 % of 1000 resampled sets.

    Args:
        statistic: of rows [N,...] each; a set without a value, NaN, is left out.
        rows: [N,...] each, of the same images; resampled together.
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


def around(
    value: float,
    statistic: Callable[..., float],
    counts: Sequence[int],
    *,
    draws: int,
    seed: int = 0,
) -> tuple[float, float]:
    """value -+ 1.96 standard deviations of the statistic over resampled sets.

    Args:
        value: of the sets themselves.
        statistic: of places int64 [n], one for each of `counts`: which images were drawn; a set
            without a value, NaN, is left out.
        counts: images of each set; sets are resampled independently of each other.
        draws: how often.
        seed: of the draws.

    Returns:
        low and high; NaN where a set has fewer than two images.
    """
    if min(counts) < 2:
        return math.nan, math.nan
    random = generator_of(seed, "bootstrap")
    found = [
        statistic(*(torch.randint(count, (count,), generator=random) for count in counts))
        for _ in range(draws)
    ]
    values = torch.tensor([v for v in found if math.isfinite(v)], dtype=torch.float64)
    half = DEVIATIONS * float(values.std()) if len(values) > 1 else math.nan
    return value - half, value + half


def mean_of(row: Tensor) -> float:
    """The mean of the finite numbers of a row [N]; NaN where there are none."""
    finite = row[row.isfinite()].double()
    return float(finite.mean()) if len(finite) else math.nan


def trimmed_mean(row: Tensor, interpolation: tuple[str, str]) -> float:
    """The mean of the numbers of a row [N] from its percentile 1 to its percentile 99, both
    included; NaN where there are none.

    Args:
        row: finite numbers.
        interpolation: of either percentile between two numbers: linear, lower, higher.
    """
    if not len(row):
        return math.nan
    row = row.double()
    low, high = (
        torch.quantile(row, edge, interpolation=how)
        for edge, how in zip((0.01, 0.99), interpolation, strict=True)
    )
    return mean_of(row[(row >= low) & (row <= high)])
