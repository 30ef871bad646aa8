"""Super-resolution: an image made smaller by a random factor and brought back to its size.

Source: Richardson et al., arXiv 2008.00951, sec. 4.4; factors of the released command.

    k_f(i) = c((i - (4f - 1) / 2) / f) / sum,  i = 0 ... 4f - 1        Keys' cubic c, a = -1/2
    s = bilinear(clamp((k_f k_f^T * x) at every f-th pixel), H x W)    borders mirrored

Differs from the released code in: an image keeps its factor in every epoch's same place, since it
is a function of (seed, position).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.seed import derive_seed
from ganinv.task.image import Image

CPU = torch.device("cpu")


def cubic(t: Tensor) -> Tensor:
    """Keys' kernel of a = -1/2."""
    t = t.abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


@lru_cache(maxsize=32)
def kernel(factor: int, device: torch.device = CPU) -> Tensor:
    """k_f [4f]."""
    places = torch.arange(4 * factor, dtype=torch.float64, device=device)
    k = cubic((places - (4 * factor - 1) / 2) / factor)
    return (k / k.sum()).float()


def smaller(x: Tensor, factor: int) -> Tensor:
    """x [B,C,H,W] -> [B,C,H/factor,W/factor]."""
    if factor == 1:
        return x
    k = kernel(factor, x.device).to(x.dtype)
    before = 3 * factor // 2
    after = 3 * factor - before
    channels = x.shape[1]
    y = F.pad(x, (before, after, before, after), mode="reflect")
    y = F.conv2d(y, k.expand(channels, 1, 1, -1), stride=(1, factor), groups=channels)
    rows = k[:, None].expand(channels, 1, -1, 1)
    return F.conv2d(y, rows, stride=(factor, 1), groups=channels)


class SuperResolution(Image):
    """s: x at 1/f of its resolution.

    Args:
        factors: of which each image has one at random; the image's sides must be multiples of each.

    Raises:
        ConfigError: no factor, or one below 1.
    """

    def __init__(self, *, factors: Sequence[int]) -> None:
        self.factors = tuple(int(factor) for factor in factors)
        if not self.factors or min(self.factors) < 1:
            raise ConfigError(
                explain(
                    f"task.factors={list(factors)}",
                    "whole numbers of at least 1",
                    "e.g. task.factors=[1,2,4,8,16,32], as released",
                )
            )

    def __call__(
        self, x: Tensor, source: Tensor | None, seeds: Sequence[int], training: bool
    ) -> Tensor:
        """Each image by its own factor.

        Raises:
            ConfigError: images that a factor does not divide, or too small for it.
        """
        most = max(self.factors)
        if any(side % factor for side in x.shape[-2:] for factor in self.factors) or (
            min(x.shape[-2:]) < 2 * most
        ):
            raise ConfigError(
                explain(
                    f"task.factors={list(self.factors)} with images of "
                    f"{x.shape[-2]} x {x.shape[-1]} px",
                    "factors that divide both sides and leave at least 2 px",
                    "leave the larger factors out",
                )
            )
        chosen = [self.factors[derive_seed(seed, "factor") % len(self.factors)] for seed in seeds]
        rows = []  # one by one: which image has which factor is known on the CPU alone
        for row, factor in zip(x.split(1), chosen, strict=True):
            if factor > 1:
                small = smaller(row, factor).clamp(-1, 1)
                row = F.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)
            rows.append(row)
        return torch.cat(rows)
