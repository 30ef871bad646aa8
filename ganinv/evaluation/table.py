"""The table of an evaluation on the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from ganinv.evaluation.result import Result, Row

ARROW = {False: "↓", True: "↑"}  # whether higher is better
STEPS = "steps/image"
TIME = "time/image ↓"
LISTED = 5  # images named in a sentence
FRAME = 3  # characters between two columns


def headings(result: Result) -> list[str]:
    """The columns' headings but the first, each with the arrow that points to better."""
    names = [f"{name} {ARROW[better]}" for name, better in result.higher_is_better.items()]
    return [*names, *([STEPS] if _optimises(result) else []), TIME]


def cells(result: Result) -> list[list[str]]:
    """A list of texts a row: inversion, values, steps where any method takes some, time."""
    return [
        [
            row.inversion + (f" ({len(row.failed)} not finite)" if row.failed else ""),
            *(_with_interval(row, name) for name in result.higher_is_better),
            *([_steps(row)] if _optimises(result) else []),
            duration(row.seconds_per_image),
        ]
        for row in result.rows
    ]


def protocols(result: Result) -> list[str]:
    """How each column is measured, where papers differ; all of images of 8 bits."""
    return [f"{column}: {words}" for column, words in result.protocol.items()]


def details(result: Result) -> list[str]:
    """A sentence on every number that stands for several: those behind it."""
    return [
        f"{row.inversion}, {column}: "
        + ", ".join(f"{label} {number(value)}" for label, value in behind.items())
        for row in result.rows
        for column, behind in row.details.items()
    ]


def failures(result: Result) -> list[str]:
    """A sentence on every method of which images came to no finite number."""
    return [
        f"{row.inversion}: {len(row.failed)} of {len(row.keys)} images came to a loss or gradient "
        f"that is no finite number, and are kept as they were before: "
        + ", ".join(row.failed[:LISTED])
        + (", ..." if len(row.failed) > LISTED else "")
        for row in result.rows
        if row.failed
    ]


def _optimises(result: Result) -> bool:
    return any(row.steps_per_image is not None for row in result.rows)


def _with_interval(row: Row, column: str) -> str:
    """`0.81`, and where there is an interval a second line `[0.78, 0.84]`."""
    text, ends = number(row.values[column]), row.intervals.get(column, (math.nan, math.nan))
    return text if math.isnan(ends[0]) else f"{text}\n[{number(ends[0])}, {number(ends[1])}]"


def _steps(row: Row) -> str:
    return "" if row.steps_per_image is None else f"{row.steps_per_image:.4g}"


def duration(seconds: float) -> str:
    """Three significant digits, in ms below a second and in minutes from two on."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def show(result: Result, console: Console) -> None:
    """Print the table; where it is too wide, in parts of whole columns, one under the other."""
    names, rows = headings(result), cells(result)
    for part in _fitting(names, rows, console.width):
        table = Table(title=None, header_style="bold")
        table.add_column("inversion", overflow="fold")
        for column in part:
            table.add_column(names[column], justify="right", no_wrap=True)
        for row in rows:
            table.add_row(row[0], *(row[column + 1] for column in part))
        console.print(table)


def _fitting(names: list[str], rows: list[list[str]], width: int) -> list[list[int]]:
    """Columns of parts that fit, beside that of the inversions' names; at least one in each."""
    left = width - 1 - FRAME - max(len("inversion"), *(len(row[0]) for row in rows))
    parts: list[list[int]] = [[]]
    used = 0
    for column, name in enumerate(names):
        lines = [line for row in rows for line in row[column + 1].split("\n")]
        wide = FRAME + max(len(name), *map(len, lines))
        if parts[-1] and used + wide > left:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += wide
    return parts
