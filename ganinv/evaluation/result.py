"""What an evaluation found, and how it is written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ganinv.evaluation.curve import Curve
from ganinv.evaluation.edits import Strip


@dataclass
class Picture:
    """An image, its reconstruction, what was measured of them, and what the encoder read."""

    key: str
    image: Tensor  # uint8 [3,H,W]
    reconstruction: Tensor  # uint8 [3,H,W]
    values: dict[str, float]
    source: Tensor | None = None  # uint8 [3,H,W], where it is not the image


@dataclass
class Row:
    """One inversion method over the whole set."""

    inversion: str
    values: dict[str, float]  # column -> its number over the images
    seconds_per_image: float
    keys: list[str]  # of the N images
    columns: dict[str, list[float]]  # column -> N numbers; "seconds" among them
    first: list[Picture]  # the first images of the set
    worst: list[Picture]  # those that are worst by `Result.judge`
    curve: Curve | None = None  # of an optimising method
    steps_per_image: float | None = None  # that it took, on average
    failed: list[str] = field(default_factory=list)  # keys of images that met no finite number
    strips: list[Strip] = field(default_factory=list)  # of the first images, one an edit
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # of columns, 95 %
    details: dict[str, dict[str, float]] = field(default_factory=dict)  # behind columns, by label

    @property
    def numbers(self) -> dict[str, float]:
        """The values, and `<column>_low` and `<column>_high` of those with an interval."""
        ends = {f"{column}_low": low for column, (low, _) in self.intervals.items()}
        ends |= {f"{column}_high": high for column, (_, high) in self.intervals.items()}
        return {**self.values, **ends}


@dataclass
class Result:
    """Everything the table, the JSON and the page show."""

    facts: dict[str, Any]  # what was evaluated: checkpoint, images seen, data, device, versions
    higher_is_better: dict[str, bool]  # column -> whether larger numbers are better
    rows: list[Row] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # images that were left out, and why
    protocol: dict[str, str] = field(default_factory=dict)  # column -> how it is measured
    notes: list[str] = field(default_factory=list)  # sentences on columns that are not there

    @property
    def images(self) -> int:
        """Images that were measured."""
        return len(self.rows[0].keys) if self.rows else 0

    @property
    def judge(self) -> str | None:
        """The column by which images are the worst; see `judge_of`."""
        known = {name for row in self.rows for name in row.columns}
        return judge_of(self.higher_is_better, known)

    def json(self) -> str:
        """The facts and the rows; a number that is not finite becomes null."""
        rows = [
            {
                "inversion": row.inversion,
                "seconds_per_image": row.seconds_per_image,
                **{name: _finite(value) for name, value in row.numbers.items()},
                **_of_details(row),
                **_of_steps(row),
            }
            for row in self.rows
        ]
        content = {
            **self.facts,
            "images": self.images,
            "unreadable": self.unreadable,
            "higher_is_better": self.higher_is_better,
            "protocol": self.protocol,
            "rows": rows,
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def csv(self) -> str:
        """One line an image and inversion method."""
        buffer = io.StringIO()
        columns = list(dict.fromkeys(name for row in self.rows for name in row.columns))
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["key", "inversion", *columns])
        for row in self.rows:
            for i, key in enumerate(row.keys):
                values = (row.columns[name][i] if name in row.columns else "" for name in columns)
                writer.writerow([key, row.inversion, *values])
        return buffer.getvalue()


def judge_of(higher_is_better: Mapping[str, bool], known: set[str]) -> str | None:
    """The first column known of each image (`known`) of which less is better, None without one."""
    return next((n for n, more in higher_is_better.items() if not more and n in known), None)


def _of_details(row: Row) -> dict[str, Any]:
    """What is behind columns, of columns that have such."""
    found = {
        column: {label: _finite(value) for label, value in behind.items()}
        for column, behind in row.details.items()
    }
    return {"details": found} if found else {}


def _of_steps(row: Row) -> dict[str, Any]:
    """What is known of an optimising method alone."""
    if row.curve is None:
        return {}
    return {
        "steps_per_image": row.steps_per_image,
        "not_finite": row.failed,
        "loss": row.curve.as_dict(),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
