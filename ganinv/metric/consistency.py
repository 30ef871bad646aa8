"""Latent editing consistency (LEC): whether a code is found again behind an edit.

Source: Tov et al. (e4e), "Designing an Encoder for StyleGAN Image Manipulation", arXiv 2102.02766;
constants of metrics/LEC.py of its release.

    w_i    [L,D]  the code of image i
    w'_i   [L,D]  that of the image of edit(w_i, s), found by the same method
    d_i = |w_i - edit(w'_i, -s)|                             over all L x D numbers
    lec          mean of d_i over images
    lec_batches  as released: means of d_i over batches of 8 images, a smaller last one left out; of
                 these means, the mean of those between the percentiles 1 and 99

lec_batches depends on the size of its batches, which is not that of the evaluation, and drops the
smallest and the largest of few: of two batches nothing is left.

Differs from the released code in: any inversion method, not only an encoder; G's stored noise; the
image that is inverted again is not rounded, as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ganinv.core.errors import config_error
from ganinv.metric.bootstrap import interval, trimmed_mean
from ganinv.metric.metric import Edit, Given, Metric, Sample, find_edit

PERCENTILES = ("linear", "linear")


class LEC(Metric):
    """Columns lec and lec_batches; lower is better.

    Args:
        edit: an entry of the group `editing` that moves codes.
        strength: s, in the edit's own unit.
        images: of a batch of lec_batches.
    """

    needs = ("found", "model", "invert")
    edit: Edit

    def __init__(self, *, edit: str, strength: float, images: int) -> None:
        super().__init__({"lec": False, "lec_batches": False})
        self.edit_name, self.strength, self.images = edit, strength, images
        how = f"{edit} by {strength:g}"
        self.protocol = {
            "lec": f"{how}, |w - w'| of each image",
            "lec_batches": f"{how}, batches of {images}, percentiles 1 to 99",
        }

    def connect(self, given: Given) -> None:
        """Find the edit.

        Raises:
            ConfigError: as `find_edit`; an encoder that does not read images.
        """
        if not given.encodes_images:
            raise config_error("metric lec with an encoder that does not read images",
                               "one of the task image: edited images are inverted again",
                               "leave lec out")  # fmt: skip
        self.edit = find_edit("lec", self.edit_name, given)

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """{lec: d [B]}."""
        assert sample.found is not None and sample.model is not None and sample.invert is not None
        edited = self.edit(sample.found, self.strength)
        again = sample.invert(sample.model.render(edited, sample.x.shape[-2:]))
        back = self.edit(again, -self.strength)
        return {"lec": (sample.found.wp - back.wp).double().flatten(1).norm(dim=1)}

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all rows [N]; lec_batches is NaN where no batch is left."""
        return {
            "lec": float(rows["lec"].double().mean()),
            "lec_batches": trimmed_mean(self._batches(rows["lec"]), PERCENTILES),
        }

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over images and, where lec_batches has a value, over batches."""
        found = {"lec": interval(lambda row: float(row.mean()), rows["lec"])}
        batches = self._batches(rows["lec"])
        if not math.isnan(trimmed_mean(batches, PERCENTILES)):
            found["lec_batches"] = interval(lambda row: trimmed_mean(row, PERCENTILES), batches)
        return found

    def _batches(self, row: Tensor) -> Tensor:
        """[N] -> the means of whole batches of images that follow each other."""
        whole = len(row) // self.images * self.images
        return row[:whole].double().reshape(-1, self.images).mean(1)
