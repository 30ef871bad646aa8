"""Tasks whose input is stored beside the target: any image, a sketch, a map of classes.

Source: Richardson et al., arXiv 2008.00951, sec. 4.3 and app. B.3; `ganinv shard --source` writes
such sets (docs/DATA.md).

    Translation   source rgb     s = source in [-1,1]            C = 3
    Sketch        source grey    s = source in [0,1], released   C = 1
    Segmentation  source labels  s = one-hot, 0 or 1             C = classes

Differs from the released code in: label maps are resized by the nearest pixel (released: bilinear,
which invents classes), and a label that is no class is refused.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.errors import ConfigError, DataError, explain
from ganinv.core.image import to_unit
from ganinv.task.task import Task


class Stored(Task):
    """s = read(source)."""

    def __call__(
        self, x: Tensor, source: Tensor | None, seeds: Sequence[int], training: bool
    ) -> Tensor:
        """What is stored, as the encoder reads it."""
        assert source is not None, f"{type(self).__name__} without a source"
        return self.read(source)


class Translation(Stored):
    """Any image to a face, or to whatever G makes: toons, photographs by night, other cameras."""

    channels = 3
    reads = "rgb"

    def read(self, source: Tensor) -> Tensor:
        """uint8 [B,3,H,W] -> [-1,1]."""
        return to_unit(source)


class Sketch(Stored):
    """A drawing in grey."""

    channels = 1
    reads = "grey"

    def read(self, source: Tensor) -> Tensor:
        """uint8 [B,1,H,W] -> [0,1]."""
        return source.float() / 255

    def picture(self, s: Tensor) -> Tensor:
        """Grey."""
        return (2 * s - 1).expand(-1, 3, -1, -1)


class Segmentation(Stored):
    """A map of classes.

    Args:
        classes: labels are 0 ... classes - 1.

    Raises:
        ConfigError: not 2 to 256 classes.
    """

    reads = "labels"

    def __init__(self, *, classes: int) -> None:
        if not 2 <= classes <= 256:
            raise ConfigError(
                explain(f"task.classes={classes}", "2 to 256", "set it to the labels of the set")
            )
        self.channels = classes

    def read(self, source: Tensor) -> Tensor:
        """uint8 [B,1,H,W] of class numbers -> one-hot [B,classes,H,W].

        Raises:
            DataError: a label that is no class.
        """
        if source.device.type == "cpu" and int(source.max()) >= self.channels:
            raise DataError(
                explain(
                    f"a label map with label {int(source.max())}",
                    f"labels 0 to {self.channels - 1} (task.classes={self.channels})",
                    "raise task.classes, or correct the maps",
                )
            )
        return F.one_hot(source[:, 0].long(), self.channels).permute(0, 3, 1, 2).float()

    def picture(self, s: Tensor) -> Tensor:
        """A colour for each class."""
        colours = [colorsys.hsv_to_rgb(0.618 * i % 1, 0.65, 0.95) for i in range(self.channels)]
        palette = torch.tensor([(0.1, 0.1, 0.1), *colours[1:]], device=s.device) * 2 - 1
        return palette[s.argmax(1)].permute(0, 3, 1, 2)
