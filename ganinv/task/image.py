"""Inversion: the encoder reads the image that it is to reproduce."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ganinv.core.image import to_unit
from ganinv.task.task import Task


class Image(Task):
    """s = x."""

    channels = 3

    def __call__(
        self, x: Tensor, source: Tensor | None, seeds: Sequence[int], training: bool
    ) -> Tensor:
        """x itself."""
        return x

    def read(self, source: Tensor) -> Tensor:
        """uint8 -> [-1,1]."""
        return to_unit(source)
