"""An evaluation in W&B, as a table of images and their numbers, and in TensorBoard, as a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

if TYPE_CHECKING:
    import wandb

TABLE = "evaluation"


@dataclass
class PictureRow:
    """A row of the table.

    Attributes:
        key: of the image.
        inversion: the method.
        images: column -> picture: input (of a task), image, reconstruction, error.
        values: column -> number.
    """

    key: str
    inversion: str
    images: Mapping[str, Image]
    values: Mapping[str, float]


def log_evaluation(
    loggers: Sequence[Logger],
    values: Mapping[str, Mapping[str, float]],
    pictures: Sequence[PictureRow],
    grids: Mapping[str, Image],
    step: int,
) -> None:
    """Log it, and end the loggers' runs.

    Args:
        loggers: of the evaluation.
        values: inversion method -> column -> its number over all images.
        pictures: the rows of the table.
        grids: inversion method -> the grid of its first images.
        step: images seen by the training.
    """
    numbers = {f"evaluation/{n}/{c}": v for n, row in values.items() for c, v in row.items()}
    for logger in loggers:
        logger.log_metrics(numbers, step=step)
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            run.log({TABLE: table(pictures)})
            run.summary.update({name: v for name, v in numbers.items() if math.isfinite(v)})
            run.finish()
        elif isinstance(logger, TensorBoardLogger):
            for name, image in grids.items():
                logger.experiment.add_image(
                    f"evaluation/{name}", np.asarray(image), step, dataformats="HWC"
                )
            logger.finalize("success")


def table(pictures: Sequence[PictureRow]) -> wandb.Table:
    """A row an image and method: key, method, pictures, numbers."""
    import wandb

    images = list(dict.fromkeys(name for row in pictures for name in row.images))
    numbers = list(dict.fromkeys(name for row in pictures for name in row.values))
    rows: list[list[Any]] = []
    for row in pictures:
        shown = [wandb.Image(row.images[name]) if name in row.images else None for name in images]
        rows.append([row.key, row.inversion, *shown, *(row.values.get(name) for name in numbers)])
    return wandb.Table(columns=["key", "inversion", *images, *numbers], data=rows)
