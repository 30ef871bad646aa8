"""Equivariance of BDInvert: whether moving f moves the image, in dB.

Source: Karras et al. (StyleGAN3), arXiv 2106.12423, eq. 5 and app. E, for EQ-T and EQ-R; Kang et
al. (BDInvert), arXiv 2108.08998, sec. 3.1, for T(G(f, wp)) being about G(T'(f), wp).

    e = T(G(f, wp)) - G(T'(f), wp)      where T(G(f, wp)) shows what was inside the image
    EQ = 20 log10 2 - 10 log10 (sum e^2 / number of such values)           images in [-1,1]

over all images and strengths. Shifts are by whole cells of f, R / h px each, so that neither side
interpolates; rotations interpolate both bilinearly. Noise maps behind f do not move with it.

Differs from StyleGAN3's in: what moves is f, not the input of the synthesis; the motions are
listed, not drawn; rotations know no windowed filters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import config_error
from ganinv.metric.bootstrap import interval
from ganinv.metric.metric import Given, Metric, Sample, named_edit

PEAK = 2.0


class Equivariance(Metric):
    """One column, in dB; higher is better. NaN for methods that find no f.

    Args:
        column: its name.
        edit: an entry of the group `editing` that moves f and knows the same of images.
        cells: whole cells of f, of a shift; None: see `strengths`.
        strengths: of the edit, in its unit; None: see `cells`.

    Raises:
        ConfigError: both or none of cells and strengths.
    """

    needs = ("found", "model")
    edit: Any

    def __init__(
        self, *, column: str, edit: str, cells: Sequence[int] | None,
        strengths: Sequence[float] | None,
    ) -> None:  # fmt: skip
        super().__init__({column: True})
        if bool(cells) == bool(strengths):
            raise config_error(f"metric={column} with cells={cells} and strengths={strengths}",
                               "one of them", "set the other to null")  # fmt: skip
        self.column, self.edit_name = column, edit
        self.cells, self.strengths = cells, strengths
        how = f"cells of f: {list(cells)}" if cells else f"strengths {list(strengths or ())}"
        self.protocol = {column: f"{edit} by {how}; dB of the peak 2 of [-1,1]"}

    def connect(self, given: Given) -> None:
        """Find the edit.

        Raises:
            ConfigError: as `named_edit`; one that does not move f, or knows no cells.
        """
        edit = named_edit(self.column, self.edit_name, given)
        wanted = "by_cells" if self.cells else "on_image"
        if not hasattr(edit, wanted):
            what = "shift" if self.cells else "shift, rotate or scale"
            raise config_error(f"metric {self.column} with edit={self.edit_name}", what,
                               f"set metric.{self.column}.edit")  # fmt: skip
        self.edit = edit

    @torch.no_grad()
    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """`error` [B,S], the sum of e^2 over `values` [B,S]; NaN where there is no f."""
        assert sample.found is not None and sample.model is not None
        found, count = sample.found, len(self.cells or self.strengths or ())
        if found.f is None:
            nothing = torch.full((len(sample.x), count), torch.nan, dtype=torch.float64)
            return {"error": nothing, "values": nothing.clone()}
        image, errors, numbers = sample.model.render(found), [], []
        for strength in self._strengths(found.f.shape[-1]):
            moved, inside = self.edit.on_image(image, strength)
            wrong = (moved - sample.model.render(self.edit(found, strength))).double().square()
            errors.append((wrong * inside).sum((1, 2, 3)))
            numbers.append(inside.double().expand_as(wrong).sum((1, 2, 3)))
        return {"error": torch.stack(errors, 1), "values": torch.stack(numbers, 1)}

    def _strengths(self, side: int) -> list[float]:
        """Of the edit, for an f of so many cells a side."""
        if self.cells:
            return [self.edit.by_cells(cells, side) for cells in self.cells]
        return list(self.strengths or ())

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all rows; NaN where there is no f."""
        return {self.column: decibel(rows["error"], rows["values"])}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over images."""
        return {self.column: interval(decibel, rows["error"], rows["values"])}

    def details(self, rows: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Of each motion."""
        labels = [f"{c:+d} cells" for c in self.cells or ()]
        labels = labels or [self.edit.label(s) for s in self.strengths or ()]
        each = zip(labels, rows["error"].T, rows["values"].T, strict=True)
        return {self.column: {label: decibel(error, count) for label, error, count in each}}


def decibel(error: Tensor, values: Tensor) -> float:
    """20 log10 2 - 10 log10 of the mean: errors are sums over so many values; infinite without."""
    mean = float(error.sum()) / max(float(values.sum()), 1.0)
    if mean == 0:
        return math.inf
    return 20 * math.log10(PEAK) - 10 * math.log10(mean) if mean > 0 else math.nan
