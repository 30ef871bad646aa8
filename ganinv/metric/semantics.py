"""Whether codes know what their images show: IDInvert's precision and recall of an attribute.

Source: Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv 2004.00049, sec. 4.2.

    score   signed distance of wp to the attribute's boundary     label   what is known of the image
    precision(t), recall(t)   of score > t;  the column is the area under that curve (average
                              precision), with a 95 % interval over images

The share of images with the attribute is what codes that know nothing come to.

Differs from the paper in: labels are known, not an attribute predictor's; the boundary stands for
one attribute, and one column for the curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ganinv.backbone.probe import check_claim
from ganinv.core.direction import chosen, read_own
from ganinv.core.errors import config_error
from ganinv.dataset.attributes import values
from ganinv.metric.bootstrap import interval
from ganinv.metric.metric import Metric, Sample


class Semantics(Metric):
    """A column of the whole set.

    Args:
        column: its name.
        boundary: a file of `ganinv fit boundary`, without conditions.
        attribute: of the dataset's records, true or false: `smile`, `hair_name=blond`.

    Raises:
        ConfigError: no boundary or attribute; a boundary by a probe below 0.9.
        WeightsMissing, WeightsError: as `read_own`.
    """

    needs = ("found", "attributes")

    def __init__(self, *, column: str, boundary: str | None, attribute: str | None) -> None:
        super().__init__({column: True})
        if boundary is None or attribute is None:
            raise config_error(
                "metric=semantics without boundary or attribute", "both",
                "add metric.semantics.boundary=smile.safetensors metric.semantics.attribute=smile",
            )  # fmt: skip
        self.column, self.attribute = column, attribute
        self.direction = chosen(read_own(Path(boundary)), None, Path(boundary))
        self.direction.check_boundary()
        test = self.direction.fitted.get("probe_test")
        if type(test) is float:
            check_claim(attribute, test)
        self.protocol = {column: f"average precision of {attribute} by {Path(boundary).name}"}

    @torch.no_grad()
    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """score and label, [B] each.

        Raises:
            ConfigError: an attribute that the images have not, or that is no yes or no.
        """
        assert sample.found is not None and sample.attributes is not None
        label, kind = values(sample.attributes, self.attribute)
        if kind != "yes_no":
            raise config_error(f"metric.semantics.attribute={self.attribute}, a number",
                               "true or false", "choose another attribute")  # fmt: skip
        return {"score": self.direction.score(sample.found.wp.float()).double(), "label": label}

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all rows [N]; NaN where all labels are the same."""
        return {self.column: average_precision(rows["score"].cpu(), rows["label"].cpu())}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over images."""
        return {self.column: interval(average_precision, rows["score"].cpu(), rows["label"].cpu())}


def average_precision(score: Tensor, label: Tensor) -> float:
    """sum_k (recall_k - recall_(k-1)) precision_k over thresholds at every score [N], codes of one
    score together; NaN where all labels [N] are the same."""
    if not 0 < float(label.sum()) < len(label):
        return float("nan")
    order = score.argsort(descending=True)
    score, label = score[order], label[order]
    last = torch.cat([score[1:] != score[:-1], torch.tensor([True])])  # of those with one score
    hits = label.cumsum(0)[last]
    found = torch.arange(1, len(label) + 1)[last]
    recall = hits / label.sum()
    step = torch.diff(recall, prepend=torch.zeros(1, dtype=recall.dtype))
    return float((step * hits / found).sum())
