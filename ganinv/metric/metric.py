"""What a metric is: it measures each image as it comes, and finishes on the rows of all images.

    metric.connect(given)            before the first image: the edits and probes that it names
    rows = metric(sample)            name -> [B] or [B,...], of each image alone
    values = metric.compute(rows)    column -> number, of the rows [N,...] of the whole set
    metric.interval(rows)            column -> its 95 % interval over images
    metric.details(rows)             column -> what is behind its number, e.g. a grid of strengths

Whoever calls keeps the rows and joins them in the order of the images, over batches, processes and
restarts. A metric keeps nothing between two samples and knows of no rank, so that its numbers are
those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from ganinv.backbone.probe import Probe
from ganinv.core.errors import config_error
from ganinv.core.interface import Inversion, Noise


class Edit(Protocol):
    """An entry of the group `editing`: an inversion and a strength give the inversion moved."""

    strengths: list[float]
    needs_f: bool  # which BDInvert alone finds
    sha256: str | None  # of a file behind it

    def __call__(self, found: Inversion, strength: float | Tensor) -> Inversion:
        """Edit; edits of codes also by a strength for each image, [B]."""
        ...

    def label(self, strength: float) -> str:
        """Above a strip."""
        ...


class Renderer(Protocol):
    """A generator's images, with or without the encoder before it."""

    G: Any

    def render(
        self,
        found: Inversion | Tensor,
        size: Sequence[int] | None = None,
        noise: Noise = "const",
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """[B,3,*size] in about [-1,1], not clamped; without size, of all the generator's px."""
        ...


@dataclass(frozen=True)
class Given:
    """What an evaluation has beside its images."""

    edits: Mapping[str, Edit]  # by their names in the group `editing`
    encodes_images: bool  # whether the encoder reads the images themselves
    load_probe: Callable[[str], Probe]  # of a file of `ganinv fit probe`


@dataclass
class Sample:
    """B images and what was made of them."""

    x: Tensor  # [B,3,H,W] in [-1,1]
    x_hat: Tensor  # [B,3,H,W] in [-1,1], its reconstruction as it would be saved: of 8 bits
    found: Inversion | None = None  # codes, and what else the method found
    attributes: Sequence[Any] | None = None  # B records of what is known of each image
    model: Renderer | None = None
    invert: Callable[[Tensor], Inversion] | None = None  # other images in place of x, as x was
    seeds: Sequence[int] | None = None  # of each image's random numbers

    def has(self, name: str) -> bool:
        """Whether this entry is there."""
        value = getattr(self, name)
        return value is not None and not (isinstance(value, Sequence) and not value)


class Metric(nn.Module):
    """One or more columns of the evaluation's table.

    Args:
        higher_is_better: column -> whether larger numbers are the better ones.
    """

    needs: tuple[str, ...] = ("x", "x_hat")  # entries of the sample
    protocol: Mapping[str, str] = {}  # column -> how it is measured, where papers differ
    sha256: str | None = None  # of a file behind the numbers, known after `connect`

    def __init__(self, higher_is_better: dict[str, bool]) -> None:
        super().__init__()
        self.higher_is_better = higher_is_better

    def connect(self, given: Given) -> None:
        """Take what it measures with out of what the evaluation has; by default nothing.

        Raises:
            ConfigError, WeightsError, WeightsMissing: something is not there, or cannot be used.
        """
        return

    def protocol_at(self, size: Sequence[int]) -> dict[str, str]:
        """column -> how it is measured, of images of (H, W) px."""
        px = f"{size[0]} x {size[1]} px"
        return {column: f"{words}, {px}" for column, words in self.protocol.items()}

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """The rows of B images: columns [B], and whatever [B,...] `compute` needs besides."""
        raise AssertionError(f"{type(self).__name__} measures nothing")

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """The columns of the whole set, from the rows of all its images in order: here the mean of
        each; NaN where there are no images."""
        return {name: float(rows[name].double().mean()) for name in self.higher_is_better}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """column -> the ends of its 95 % interval over images, of columns that have one."""
        return {}

    def details(self, rows: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """column -> the numbers behind it by their labels, of columns that have some."""
        return {}


def find_edit(column: str, name: str, given: Given) -> Edit:
    """The edit of codes that a metric names.

    Args:
        column: of the metric, for messages.
        name: in the group `editing`.
        given: the evaluation's.

    Raises:
        ConfigError: it is not there, or moves f instead of codes.
    """
    edit = named_edit(column, name, given)
    if edit.needs_f:
        raise config_error(f"metric {column} with edit={name}, which moves f",
                           "an edit of codes, e.g. direction or sefa",
                           f"set metric.{column}.edit")  # fmt: skip
    return edit


def named_edit(column: str, name: str, given: Given) -> Edit:
    """The edit that a metric names, of codes or of f. Arguments as `find_edit`.

    Raises:
        ConfigError: it is not there.
    """
    if name not in given.edits:
        there = ", ".join(given.edits) or "none"
        raise config_error(f"metric {column} with edit={name}, which is not among the edits "
                           f"({there})", "an entry of the group editing",
                           f"add editing=[{name}], or set metric.{column}.edit")  # fmt: skip
    return given.edits[name]
