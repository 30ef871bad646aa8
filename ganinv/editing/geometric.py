"""Geometric transforms of the base code f: the image moves as if the photo had.

Source: Kang et al. (BDInvert), arXiv 2108.08998, sec. 3.1: T(G(f, wp)) is about G(T'(f), wp), T'
the same transform at f's size.

    a pixel at q goes to  c + scale Rot(angle) (q - c) + shift     (rows down, columns to the right)

in px of the image of R x R px, whose pixel centres lie at 0.5, 1.5 ...; a cell of f is R / h px, so
the one affine map serves both sizes. Angles turn counter-clockwise as one looks at the image.

The paper does not say how f is interpolated and what comes in at the edges: bilinear here, and one
of four paddings. No code for it was released.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion

Padding = Literal["border", "reflection", "zeros", "circular"]
WHOLE = 0.999  # share of a pixel that comes from inside the image, up to rounding


def warp(
    maps: Tensor,
    *,
    size: int,
    shift: Sequence[float] = (0.0, 0.0),
    angle: float = 0.0,
    scale: float = 1.0,
    centre: Sequence[float] | None = None,
    padding: Padding = "border",
) -> Tensor:
    """maps [B,C,h,h] -> the same, moved.

    Args:
        maps: f, or an image.
        size: R, px of the image that `shift` and `centre` are measured in.
        shift: (down, right) in px.
        angle: in degrees.
        scale: above 0; 2 makes everything twice as large.
        centre: c, (row, column) in px; None for the middle.
        padding: what comes in from outside: the border's values, the mirrored map, 0, or the map
            again from the other side.

    Raises:
        ConfigError: a scale of 0 or less, or an unknown padding.
    """
    if not scale > 0:
        raise ConfigError(explain(f"scale={scale}", "a number above 0", "set it"))
    if padding not in get_args(Padding):
        raise ConfigError(
            explain(f"padding={padding}", f"one of {', '.join(get_args(Padding))}", "set it")
        )
    height, width = maps.shape[-2:]
    row, column = (size / 2, size / 2) if centre is None else centre
    position = torch.arange(height, dtype=maps.dtype, device=maps.device) + 0.5
    y = position * size / height - row - shift[0]  # px, of where each cell's content ends up
    x = (torch.arange(width, dtype=maps.dtype, device=maps.device) + 0.5) * size / width
    x = x - column - shift[1]
    cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
    from_x = cos * x[None, :] - sin * y[:, None] + column  # px, of where it comes from
    from_y = sin * x[None, :] + cos * y[:, None] + row
    if padding == "circular":  # one cell of the other side around the map, so that all lies inside
        maps = F.pad(maps, (1, 1, 1, 1), mode="circular")
        cells = [(from_x * width / size - 0.5) % width, (from_y * height / size - 0.5) % height]
        grid = [2 * (cells[0] + 1.5) / (width + 2) - 1, 2 * (cells[1] + 1.5) / (height + 2) - 1]
    else:
        grid = [2 * from_x / size - 1, 2 * from_y / size - 1]
    points = torch.stack(grid, -1).expand(len(maps), -1, -1, -1)
    outside = "border" if padding == "circular" else padding
    return F.grid_sample(maps, points, mode="bilinear", padding_mode=outside, align_corners=False)


def geometric(
    found: Inversion,
    *,
    size: int,
    shift: Sequence[float] = (0.0, 0.0),
    angle: float = 0.0,
    scale: float = 1.0,
    centre: Sequence[float] | None = None,
    padding: Padding = "border",
) -> Inversion:
    """The inversion with f moved; wp, noise maps and weights stay. Arguments as in `warp`.

    Raises:
        ConfigError: an inversion without f; else as `warp`.
    """
    if found.f is None:
        raise ConfigError(
            explain("a geometric transform of an inversion without f",
                    "one of bdinvert, which finds an f", "invert with inversion=[bdinvert]")
        )  # fmt: skip
    f = warp(
        found.f, size=size, shift=shift, angle=angle, scale=scale, centre=centre, padding=padding
    )
    return replace(found, f=f)


class _Geometric:
    """An edit of `evaluate.py`: f moved, once for each strength.

    Args:
        strengths: that are shown.
        padding: see `warp`.
        generator: G, whose side is what px are counted in.
    """

    needs_f, sha256, unit = True, None, ""

    def __init__(self, *, strengths: Sequence[float], padding: Padding, generator: Any) -> None:
        self.strengths, self.padding, self.size = list(strengths), padding, generator.resolution

    def __call__(self, found: Inversion, strength: float) -> Inversion:
        """Moved that far."""
        return geometric(found, size=self.size, padding=self.padding, **self.motion(strength))

    def on_image(self, image: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """The same motion of an image [B,3,H,H] -> [B,3,H,H], and where [1,1,H,H] it shows what was
        inside the image."""
        how = {"size": self.size, "padding": "zeros", **self.motion(strength)}
        whole = warp(torch.ones_like(image[:1, :1]), **how)
        return warp(image, **how), whole > WHOLE

    def motion(self, strength: float) -> dict[str, Any]:
        """The arguments of `geometric`."""
        raise AssertionError(f"{type(self).__name__} moves nothing")

    def label(self, strength: float) -> str:
        """Above a strip."""
        return f"{strength:+.4g}{self.unit}" if strength else "0"


class Rotate(_Geometric):
    """By `strength` degrees about the middle. Arguments as `_Geometric`."""

    unit = "\N{DEGREE SIGN}"

    def motion(self, strength: float) -> dict[str, Any]:
        """The angle."""
        return {"angle": strength}


class Scale(_Geometric):
    """`strength` times as large, about the middle. Arguments as `_Geometric`."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        if bad := [s for s in self.strengths if not s > 0]:
            raise ConfigError(
                explain(f"editing.scale.strengths with {bad[0]}", "factors above 0", "e.g. 0.8")
            )

    def motion(self, strength: float) -> dict[str, Any]:
        """The factor."""
        return {"scale": strength}

    def label(self, strength: float) -> str:
        """Above a strip."""
        return f"x{strength:.4g}"


class Shift(_Geometric):
    """By `strength` per cent of the image's side. Further arguments as `_Geometric`.

    Args:
        towards: where positive strengths lead.
    """

    unit = " %"

    def __init__(self, *, towards: Literal["right", "down"], **rest: Any) -> None:
        super().__init__(**rest)
        self.towards = towards

    def by_cells(self, cells: int, side: int) -> float:
        """The strength that moves an f of so many cells a side by whole ones."""
        return 100 * cells / side

    def motion(self, strength: float) -> dict[str, Any]:
        """(down, right) px."""
        px = strength / 100 * self.size
        return {"shift": (0.0, px) if self.towards == "right" else (px, 0.0)}
