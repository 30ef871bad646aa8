"""What an encoder reads of a batch: the image itself, an input made from it, or one stored with it.

Source: Richardson et al., arXiv 2008.00951, sec. 4 and app. B: one encoder, several tasks.

    x       [B,3,H,W] in [-1,1]   the target
    source  uint8 [B,C0,H,W]      what a paired set stores beside each target; None otherwise
    s       [B,C,H,W]             what the encoder reads
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ganinv.core.interface import SourceKind


class Task(ABC):
    """A task. Every random choice is a function of a seed of the image's place in the stream."""

    channels: int  # C
    reads: ClassVar[SourceKind | None] = None  # what the dataset must store beside the target

    @abstractmethod
    def __call__(
        self, x: Tensor, source: Tensor | None, seeds: Sequence[int], training: bool
    ) -> Tensor:
        """s of a batch.

        Args:
            x: targets.
            source: what is stored with them, if the task reads anything.
            seeds: one an image.
            training: False in validation and evaluation.
        """

    @abstractmethod
    def read(self, source: Tensor) -> Tensor:
        """s [B,C,H,W] of a user's own inputs, uint8 [B,C0,H,W], of which no target is known."""

    def picture(self, s: Tensor) -> Tensor:
        """s as an image [B,3,H,W] in [-1,1], for grids and reports."""
        return s
