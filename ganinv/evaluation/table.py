"""The table of an evaluation on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ganinv.evaluation.result import Result

ARROW = {False: "↓", True: "↑"}  # whether higher is better
TIME = "time/image ↓"


def headings(result: Result) -> list[str]:
    """The columns' headings, each with the arrow that points to better."""
    return [f"{name} {ARROW[better]}" for name, better in result.higher_is_better.items()]


def cells(result: Result) -> list[list[str]]:
    """A list of texts a row: inversion, values, time."""
    return [
        [
            row.inversion,
            *(number(row.values[name]) for name in result.higher_is_better),
            duration(row.seconds_per_image),
        ]
        for row in result.rows
    ]


def duration(seconds: float) -> str:
    """Three significant digits, in ms below a second and in minutes from two on."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def show(result: Result, console: Console) -> None:
    """Print the table."""
    table = Table(title=None, header_style="bold")
    table.add_column("inversion")
    for heading in [*headings(result), TIME]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in cells(result):
        table.add_row(*row)
    console.print(table)
