"""The loss of optimising methods over their steps: what is kept of each image, and the drawing.

trace      [T,B]  what the loop saw, NaN from an image's end on (`inversion/optimise.py`)
loss       [B,K]  of each image at K <= `POINTS` of the T steps; after its end, what it had then
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

POINTS = 100  # of a curve
WIDTH, HEIGHT, LEFT, BELOW = 640, 240, 64, 28  # px of the drawing and of its margins


@dataclass
class Curve:
    """The loss of N images over the steps of a method."""

    steps: list[int]  # K steps, ascending
    middle: list[float]  # median over the images
    low: list[float]  # of the images, one in ten has less ...
    high: list[float]  # ... and one in ten more

    def as_dict(self) -> dict[str, list[Any]]:
        """For JSON, where a number that is not finite becomes null."""
        values = {"median": self.middle, "low": self.low, "high": self.high}
        return {"step": self.steps} | {
            name: [v if math.isfinite(v) else None for v in column]
            for name, column in values.items()
        }


def shown_steps(count: int) -> list[int]:
    """At most `POINTS` of the steps 0 ... count - 1, the first and the last among them."""
    number = min(count, POINTS)
    return [round(i * (count - 1) / max(number - 1, 1)) for i in range(number)]


def loss_rows(trace: Any) -> Tensor:
    """The loss [B,K] of a method's trace."""
    total: Tensor = trace.values[trace.shown].detach().double().cpu()  # [T,B]
    held = torch.empty_like(total)
    last = torch.full_like(total[0], math.nan)
    for step, now in enumerate(total):
        last = torch.where(now.isfinite(), now, last)
        held[step] = last
    return held[shown_steps(len(total))].t().contiguous()


def curve_of(loss: Tensor, steps: int) -> Curve:
    """The curve of N images.

    Args:
        loss: [N,K], of each image.
        steps: T.
    """
    parts = [torch.nanquantile(loss.double(), q, 0).tolist() for q in (0.5, 0.1, 0.9)]
    return Curve(shown_steps(steps), *parts)


# ------------------------------------------------------------------ drawing


def svg(curve: Curve, title: str) -> str:
    """The curve as an SVG element: the median, and the band of four images in five; the loss on a
    logarithmic scale where all of it is above 0."""
    numbers = [v for v in (*curve.low, *curve.high) if math.isfinite(v)]
    if not numbers:
        return f"<p>{escape(title)}: no loss was a finite number</p>"
    scale = _Scale(min(numbers), max(numbers), max(curve.steps[-1], 1))
    edge = scale.points(curve.steps, curve.high) + scale.points(curve.steps, curve.low)[::-1]
    band = " ".join(edge)
    line = " ".join(scale.points(curve.steps, curve.middle))
    marks = "".join(_mark(scale, value) for value in scale.ticks())
    below = HEIGHT - BELOW
    ends = "".join(
        f"<text x='{x:.1f}' y='{below + 18}' text-anchor='{anchor}'>{step}</text>"
        for step, x, anchor in (
            (0, LEFT, "start"),
            (curve.steps[-1] + 1, WIDTH - 8, "end"),
        )
    )
    return (
        f"<svg class='curve' viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>"
        f"<title>{escape(title)}</title>{marks}"
        f"<polygon points='{band}' class='band'/><polyline points='{line}' class='line'/>"
        f"<line x1='{LEFT}' y1='{below}' x2='{WIDTH - 8}' y2='{below}' class='axis'/>"
        f"{ends}<text x='{(LEFT + WIDTH) / 2}' y='{below + 18}' text-anchor='middle'>step</text>"
        "</svg>"
    )


class _Scale:
    """Steps and losses to px."""

    def __init__(self, low: float, high: float, last: int) -> None:
        self.log = low > 0 and high > 1.5 * low
        self.low, self.high, self.last = self._value(low), self._value(high), last
        if self.high <= self.low:
            self.high = self.low + 1.0

    def _value(self, loss: float) -> float:
        return math.log10(loss) if self.log else loss

    def y(self, loss: float) -> float:
        """px from the top."""
        share = (self._value(loss) - self.low) / (self.high - self.low)
        return HEIGHT - BELOW - share * (HEIGHT - BELOW - 12)

    def points(self, steps: Sequence[int], losses: Sequence[float]) -> list[str]:
        """Texts such as 64.0,12.0 of every finite loss."""
        return [
            f"{LEFT + step / self.last * (WIDTH - 8 - LEFT):.1f},{self.y(loss):.1f}"
            for step, loss in zip(steps, losses, strict=True)
            if math.isfinite(loss)
        ]

    def ticks(self) -> list[float]:
        """Four losses, evenly apart as drawn."""
        values = [self.low + i * (self.high - self.low) / 3 for i in range(4)]
        return [10**v for v in values] if self.log else values


def _mark(scale: _Scale, value: float) -> str:
    y = scale.y(value)
    return (
        f"<line x1='{LEFT}' y1='{y:.1f}' x2='{WIDTH - 8}' y2='{y:.1f}' class='grid'/>"
        f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{value:.3g}</text>"
    )
