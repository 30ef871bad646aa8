"""What an evaluation found, and how it is written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ganinv.metric.metric import Better


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
    values: dict[str, float]  # column -> mean over the images, or the value of the set
    ms_per_image: float
    per_image: list[dict[str, float]]  # in the order of Result.keys
    first: list[Picture]  # the first images of the set
    worst: list[Picture]  # those with the largest value of the first lower-is-better column


@dataclass
class Result:
    """Everything the table, the JSON and the page show."""

    facts: dict[str, Any]  # what was evaluated: checkpoint, images seen, data, device, versions
    higher_is_better: dict[str, Better]  # column -> better direction
    keys: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def json(self) -> str:
        """The facts and the rows; a number that is not finite becomes null."""
        rows = [
            {
                "inversion": row.inversion,
                "ms_per_image": row.ms_per_image,
                **{name: _finite(value) for name, value in row.values.items()},
            }
            for row in self.rows
        ]
        content = {
            **self.facts,
            "images": len(self.keys),
            "better": self.higher_is_better,
            "rows": rows,
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def csv(self) -> str:
        """One line an image and inversion method."""
        buffer = io.StringIO()
        columns = sorted({name for row in self.rows for values in row.per_image for name in values})
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["key", "inversion", *columns])
        for row in self.rows:
            for key, values in zip(self.keys, row.per_image, strict=True):
                writer.writerow([key, row.inversion, *(values.get(name, "") for name in columns)])
        return buffer.getvalue()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
