"""FID of edited images: whether images that were given an attribute look like those that have it.

Source: Pehlivan et al. (StyleRes), arXiv 2212.14359, sec. 4, and the script of StyleFeatureEditor.

    A      images of the set that have the attribute      B   those that have not
    B'_s   G(edit(found, s)) of the images of B
    edit_fid = min over s of FID(A, B'_s)

The strength is chosen, for each method and direction, where FID is lowest, as those papers do; the
whole grid is reported beside it. It is the edit's `strengths`.

Differs from those papers in: the attribute is known of each image, not predicted by a classifier;
the backbone is named in the column.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganinv.core.errors import config_error
from ganinv.core.image import to_uint8, to_unit
from ganinv.dataset.attributes import values
from ganinv.metric.bootstrap import around
from ganinv.metric.fid import FID_DRAWS, Features, frechet
from ganinv.metric.metric import Edit, Given, Metric, Sample, find_edit


class EditFID(Metric):
    """One column of the whole set.

    Args:
        column: its name; say the backbone in it.
        backbone: a network with `features(image) -> [B,F]`; frozen.
        edit: an entry of the group `editing` that moves codes.
        attribute: of the dataset's records, true or false: `smile`, `hair_name=blond`.
        adds: whether the edit adds the attribute; else A are the images without it.

    Raises:
        ConfigError: no attribute.
    """

    needs = ("found", "model", "attributes")
    edit: Edit

    def __init__(
        self, *, column: str, backbone: nn.Module, edit: str, attribute: str | None, adds: bool
    ) -> None:
        super().__init__({column: False})
        if attribute is None:
            raise config_error(f"metric={column} without an attribute", "one of the dataset, true "
                               "or false", f"add metric.{column}.attribute=smile")  # fmt: skip
        self.column, self.edit_name, self.attribute, self.adds = column, edit, attribute, adds
        self.backbone = backbone.eval().requires_grad_(False)
        which = f"{attribute} {'added' if adds else 'taken away'}"
        self.protocol = {column: f"{which} along {edit}, lowest of the grid of strengths"}

    def connect(self, given: Given) -> None:
        """Find the edit. Errors as `find_edit`."""
        self.edit = find_edit(self.column, self.edit_name, given)

    @torch.no_grad()
    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """`in_A` [B], `features_x` [B,F], `features_edited` [B,S,F], NaN of the images of A.

        Raises:
            ConfigError: an attribute that the images have not, or that is no yes or no.
        """
        found, model, records = sample.found, sample.model, sample.attributes
        assert found is not None and model is not None and records is not None
        label, kind = values(records, self.attribute)
        if kind != "yes_no":
            raise config_error(f"metric.{self.column}.attribute={self.attribute}, a number",
                               "true or false", "choose another attribute")  # fmt: skip
        network: Features = self.backbone  # type: ignore[assignment]
        inside = label == float(self.adds)
        h, size = network.features(sample.x), sample.x.shape[-2:]
        edited = h.new_full((len(h), len(self.edit.strengths), h.shape[1]), torch.nan)
        if not bool(inside.all()):
            for i, strength in enumerate(self.edit.strengths):
                image = model.render(self.edit(found, strength), size)[~inside]
                edited[~inside, i] = network.features(to_unit(to_uint8(image)))
        return {"in_A": inside, "features_x": h, "features_edited": edited}

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """The lowest of the grid; NaN below two images on either side."""
        return {self.column: self._lowest(rows)[1]}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over the images of A and of B, at the strength that was chosen."""
        place, value = self._lowest(rows)
        real, fake = self._sets(rows, place)
        counts = [len(real), len(fake)]

        def drawn(first: Tensor, second: Tensor) -> float:
            return frechet(real[first], fake[second])

        return {self.column: around(value, drawn, counts, draws=FID_DRAWS)}

    def details(self, rows: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """The grid, and how many images A and B have."""
        inside = rows["in_A"].bool()
        grid = {self.edit.label(s): v for s, v in zip(self.edit.strengths, self._grid(rows),
                                                      strict=True)}  # fmt: skip
        count = int(inside.sum())
        return {self.column: {**grid, "images of A": count, "of B": len(inside) - count}}

    def _grid(self, rows: Mapping[str, Tensor]) -> list[float]:
        sets = [self._sets(rows, place) for place in range(len(self.edit.strengths))]
        return [frechet(real, fake) for real, fake in sets]

    def _lowest(self, rows: Mapping[str, Tensor]) -> tuple[int, float]:
        grid = self._grid(rows)
        place = min(range(len(grid)), key=grid.__getitem__)
        return place, grid[place]

    def _sets(self, rows: Mapping[str, Tensor], place: int) -> tuple[Tensor, Tensor]:
        """Features of A [N,F], and of B edited by the strength at this place [M,F], float64."""
        inside = rows["in_A"].bool()
        fake = rows["features_edited"][~inside, place]
        return rows["features_x"][inside].double(), fake.double()
