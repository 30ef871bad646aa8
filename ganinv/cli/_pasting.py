"""`ganinv invert --paste`: contexts for semantic diffusion (`ganinv/inversion/diffusion.py`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.command import printable
from ganinv.core.errors import ConfigError, explain

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.dataset.faces import Detector
    from ganinv.dataset.source import Source
    from ganinv.inversion.model import Model

Box = tuple[float, float, float, float]


def box_of(text: str | None) -> Box | None:
    """Top, bottom, left and right of "0.35,0.78,0.27,0.7"; None for None.

    Raises:
        ConfigError: no such box.
    """
    if text is None:
        return None
    try:
        edges = [float(word) for word in text.split(",")]
    except ValueError:
        edges = []
    if len(edges) == 4 and all(math.isfinite(edge) for edge in edges):
        top, bottom, left, right = edges
        if 0 <= top < bottom <= 1 and 0 <= left < right <= 1:
            return top, bottom, left, right
    raise ConfigError(
        explain(f"--box {text}", "top < bottom and left < right, parts of the side from 0 to 1",
                "e.g. --box 0.35,0.78,0.27,0.7")
    )  # fmt: skip


@dataclass(frozen=True)
class Pasting:
    """Contexts of images, and the box of each image that stays in its own."""

    contexts: Source
    names: list[str]  # of the contexts
    box: Box

    def __call__(self, image: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [3,H,W] in uint8 [3,H,W] -> the composite, and the mask uint8 [1,H,W] of the box.

        Raises:
            ConfigError: a box without a pixel.
        """
        from ganinv.inversion.diffusion import paste

        x, mask = paste(image[None], context[None], self.box)
        return x[0], mask[0]

    def context_of(self, name: str) -> bytes:
        """The file of an image's context: of the same name, or the only one."""
        return self.contexts.read(name if name in self.names else self.names[0])

    @property
    def settings(self) -> list[Any]:
        """All that the composites depend on, beside the images."""
        return [repr(self.contexts.items()), list(self.box)]


def open_pasting(
    path: Path | None, box: Box | None, source: Source, detector: Detector | None, model: Model,
    size: int | None,
) -> Pasting | None:  # fmt: skip
    """The contexts of a folder; None where none is given.

    Args:
        path: of --paste.
        box: of --box; None: that of aligned faces.
        source: the images.
        detector: of --align, which the contexts are aligned by, too.
        model: whose encoder reads the composites.
        size: px a side at which a method compares, None for what the encoder reads.

    Raises:
        ConfigError: no context in it; an image without one where there are several; a box that has
            no pixel.
        DataError: a folder that cannot be read.
    """
    import torch

    from ganinv.cli._align_options import aligned
    from ganinv.cli._inputs import compared
    from ganinv.dataset.source import open_source
    from ganinv.inversion.diffusion import FACE

    if path is None:
        return None
    contexts = open_source(path)
    known = [name for name, _ in contexts.items()]
    if not known:
        raise ConfigError(explain(f"--paste {path} without any image", "a context for each image, "
                                  "or one for all", "check the path"))  # fmt: skip
    missing = [name for name, _ in source.items() if name not in known]
    if len(known) > 1 and missing:
        raise ConfigError(
            explain(f"--paste {path} without a context for {printable(missing[0])}",
                    "an image of the same name, or one image for all",
                    "name them as the images, suffix and all")
        )  # fmt: skip
    made = Pasting(aligned(contexts, detector, model.input_size), known, box or FACE)
    for height, width in (model.input_size, compared(model, size)):
        blank = torch.zeros(3, height, width, dtype=torch.uint8)
        made(blank, blank)  # refuses
    return made
