"""What `ganinv edit` makes of codes: pictures along a direction, towards the next code, crossed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ganinv.core.errors import ConfigError, explain

if TYPE_CHECKING:
    from ganinv.core.direction import Direction
    from ganinv.core.interface import Inversion


@dataclass(frozen=True)
class Given:
    """Codes, their names, and where they come from."""

    names: list[str]
    found: list[Inversion]  # of one image each
    generator: str | None  # as the file names it
    sha256: str | None  # of the generator, where the file says it
    path: Path


@dataclass(frozen=True)
class Edited:
    """One edit of all codes, made a picture at a time: those of tuned generators are large."""

    label: str  # its name in OUT
    what: str  # words between the number of rows and the labels
    names: list[str]  # of the N rows
    at: Callable[[int, float], Inversion]  # of a row, at a strength
    strengths: list[float]  # of the S pictures
    labels: list[str]  # of the S pictures
    moves: bool = True  # whether strengths between those have pictures too

    def row(self, number: int) -> list[Inversion]:
        """The S pictures of a row."""
        return [self.at(number, strength) for strength in self.strengths]


def along(
    given: Given, label: str, direction: Direction, strengths: list[float],
    layers: list[int] | None,
) -> Edited:  # fmt: skip
    """Along a direction. Errors as `move`."""
    from ganinv.editing.direction import move, signed

    def at(row: int, strength: float) -> Inversion:
        return move(given.found[row], direction, strength, layers)

    labels = [signed(s) for s in strengths]
    return Edited(label, "images, strengths", given.names, at, strengths, labels)


def interpolated(given: Given, pictures: int) -> Edited:
    """From each image to the next.

    Raises:
        ConfigError: one image only; inversions that have no between.
    """
    from ganinv.editing.interpolate import check_alike, interpolate

    names = _pairs(given, "--interpolate")
    for first, second in pairwise(given.found):
        check_alike(first, second)

    def at(row: int, t: float) -> Inversion:
        return interpolate(given.found[row], given.found[row + 1], t)

    places = [i / (pictures - 1) for i in range(pictures)]
    labels = [f"{t:.3g}" for t in places]
    return Edited("interpolate", "pairs, at", names, at, places, labels)


def crossed_over(given: Given, layers: list[int], text: str) -> Edited:
    """Each image and the next, and both with these layers of wp exchanged; f, noise maps and
    changes of weights stay with the other layers.

    Args:
        given: the codes.
        layers: that are exchanged.
        text: how they were asked for.

    Raises:
        ConfigError: one image only.
    """
    from dataclasses import replace

    from ganinv.editing.mix import crossover

    def at(row: int, place: float) -> Inversion:
        pair = given.found[row : row + 2]
        if place < 2:
            return pair[int(place)]
        base = int(place) - 2
        return replace(pair[base], wp=crossover(pair[0].wp, pair[1].wp, layers)[base])

    names = _pairs(given, "--crossover")
    labels = ["1", "2", f"1 with {text} of 2", f"2 with {text} of 1"]
    return Edited("crossover", "pairs:", names, at, [0.0, 1.0, 2.0, 3.0], labels, moves=False)


def _pairs(given: Given, option: str) -> list[str]:
    """The names of pairs.

    Raises:
        ConfigError: there are none.
    """
    if len(given.found) < 2:
        raise ConfigError(
            explain(f"{given.path} with one code for {option}",
                    "at least two: each goes with the next", "pass more images")
        )  # fmt: skip
    return [f"{first}--{Path(second).name}" for first, second in pairwise(given.names)]
