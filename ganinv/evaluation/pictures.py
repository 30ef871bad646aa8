"""The pictures of a report: the first images of the set, and the worst, kept while it is measured.

They are files beside the finished batches, so that any process finds and any restart keeps them.
An image that is not among the `WORST` worst of those measured so far will never be: whoever
finishes a batch may remove what has fallen behind.
"""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from ganinv.core.safe.io import read_safetensors, write_safetensors
from ganinv.evaluation.result import Picture

WORST = 8


class Pictures:
    """Those of one inversion method.

    Args:
        folder: theirs alone.
        first: how many images of the set's beginning are shown.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.folder, self.first = folder, first

    def keep(self, number: int, score: float | None, picture: Picture) -> None:
        """Keep the picture of the set's image `number` as long as it will be shown.

        Args:
            number: place in the set.
            score: larger is worse, NaN is the worst; None where nothing tells.
            picture: to keep.
        """
        if number < self.first:
            self._write(self.folder / f"first_{number:08d}.safetensors", picture)
        if score is None:
            return
        file = self.folder / f"worst_{number:08d}_{score!r}.safetensors"
        ranked = sorted({*self.folder.glob("worst_*.safetensors"), file}, key=_place)
        if file in ranked[:WORST]:
            self._write(file, picture)
        for passed in ranked[WORST:]:
            passed.unlink(missing_ok=True)

    @staticmethod
    def _write(file: Path, picture: Picture) -> None:
        tensors: dict[str, Tensor] = {
            "image": picture.image,
            "reconstruction": picture.reconstruction,
        }
        if picture.source is not None:
            tensors["source"] = picture.source
        write_safetensors(file, tensors, {"key": picture.key, "values": picture.values})

    def read(self) -> tuple[list[Picture], list[Picture]]:
        """The first, and the worst, the very worst first."""
        first = sorted(self.folder.glob("first_*.safetensors"))
        worst = sorted(self.folder.glob("worst_*.safetensors"), key=_place)[:WORST]
        return [_read(file) for file in first], [_read(file) for file in worst]


def _place(file: Path) -> tuple[float, int]:
    """Descending score, then the order of the set."""
    _, number, text = file.stem.split("_")
    score = float(text)
    return -math.inf if math.isnan(score) else -score, int(number)


def _read(file: Path) -> Picture:
    tensors, known = read_safetensors(file)
    return Picture(
        known["key"],
        tensors["image"],
        tensors["reconstruction"],
        known["values"],
        tensors.get("source"),
    )
