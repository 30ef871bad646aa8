"""What was measured of a claim, and the page and pictures that tell it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from claims_runs import Runs


@dataclass(frozen=True)
class Measured:
    """A difference, lower is better for what the paper prefers.

    Args:
        what: is compared, and by what.
        preferred: mean over the images of what the paper prefers.
        other: of what it is compared with.
        low: end of the interval of preferred - other.
        high: the other end.
        count: images.
    """

    what: str
    preferred: float
    other: float
    low: float
    high: float
    count: int

    @property
    def verdict(self) -> str:
        """By the interval."""
        if self.high < 0:
            return "holds"
        return "does not hold" if self.low > 0 else "not decidable"

    @property
    def numbers(self) -> str:
        """In a line."""
        return (f"{self.preferred:.4f} to {self.other:.4f}, difference {self.low:+.4f} to "
                f"{self.high:+.4f}, n={self.count}")  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """What a paper says, and how it is tried.

    Args:
        name: in file names.
        says: the paper's sentence in ours.
        source: the paper.
        measure: what is measured for it.
    """

    name: str
    says: str
    source: str
    measure: Callable[[Runs], list[Measured]]


def page(found: Mapping[Claim, Sequence[Measured]]) -> str:
    """docs/CLAIMS.md; a claim of which nothing is measured is told as such."""
    lines = [HEAD, "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for claim, measured in found.items():
        if not measured:
            lines.append(f"| {claim.says} | {claim.source} | not measured yet" + " | " * 5 + "|")
        for i, m in enumerate(measured):
            says = (claim.says, claim.source) if i == 0 else ("", "")
            numbers = [f"{m.preferred:.4g}", f"{m.other:.4g}", f"{m.low:+.3g} to {m.high:+.3g}"]
            cells = [*says, m.what, *numbers, str(m.count), m.verdict]
            lines.append("| " + " | ".join(cells) + " |")
    shown = [f"![{claim.says}](claims/{claim.name}.svg)" for claim in found if found[claim]]
    return "\n".join([*lines, "", *shown, ""])


COLUMNS = ("claim", "source", "measured", "preferred", "other", "95 % of the difference", "n", "")
HEAD = """# The papers' claims, on the built-in domain

Written by `python benchmarks/claims.py`, which trains and evaluates everything below (ten trainings
of 4 or 8 kimg, all with seed 0, on the shipped generator; drawn faces of 64 px that no training
saw). Each row compares two things on the same images; lower is better, and *preferred* is what the
paper prefers. The interval holds the mean difference of 95 % of 1000 resampled sets of images:
**holds** where it lies below 0, **does not hold** where it lies above, **not decidable** where 0 is
in it. It is over images, not over seeds. What does not hold here may hold on photographs.
"""


def figure(measured: Sequence[Measured]) -> bytes:
    """Differences with their intervals, in shares of the other's mean, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 0.7 + 0.45 * len(measured)))
    colours = {"holds": "tab:green", "does not hold": "tab:red", "not decidable": "tab:gray"}
    for i, m in enumerate(measured):
        scale = 100 / max(abs(m.other), 1e-12)
        low, high, middle = m.low * scale, m.high * scale, (m.preferred - m.other) * scale
        axes.plot([low, high], [i, i], color=colours[m.verdict], linewidth=3)
        axes.plot(middle, i, "o", color=colours[m.verdict])
        axes.annotate(m.verdict, (middle, i), textcoords="offset points", xytext=(0, 6),
                      ha="center", fontsize=7)  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(measured)), [m.what for m in measured], fontsize=7)
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.set_xlabel("difference in % of the second (left: better, as the paper says)", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return buffer.getvalue()
