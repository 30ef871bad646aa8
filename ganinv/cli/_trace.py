"""The loss over steps of `ganinv invert --method`: OUT/loss.csv, and its ends for invert.json."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def table(names: list[str], loss: Tensor, steps: int) -> str:
    """A row an image: its name, then its loss at each shown step; empty where it was no finite
    number.

    Args:
        names: of N images.
        loss: [N,K], see `evaluation/curve.py`.
        steps: of the method.
    """
    from ganinv.evaluation.curve import shown_steps

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", *shown_steps(steps)])
    for name, row in zip(names, loss.tolist(), strict=True):
        writer.writerow([name, *(f"{v:.7g}" if math.isfinite(v) else "" for v in row)])
    return buffer.getvalue()


def ends(loss: Tensor, name: str) -> dict[str, Any] | None:
    """The loss's name and its means at the first and last step, over the images of [N,K] that have
    finite ones; None where none has."""
    finite = loss[loss.isfinite().all(1)]
    if not len(finite):
        return None
    return {"name": name, "first": float(finite[:, 0].mean()), "last": float(finite[:, -1].mean())}
