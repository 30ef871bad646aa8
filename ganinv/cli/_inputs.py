"""A user's own images as an encoder reads them, and the names of what is made of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, explain

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.inversion.model import Model
    from ganinv.task.task import Task

TASKS = ("image", "sketch", "segmentation")


def task_of(model: Model, name: str | None) -> Task:
    """What the encoder reads: what its file says or, before that, `name`.

    Raises:
        ConfigError: the encoder has not the channels of `name`.
    """
    from ganinv.task.image import Image
    from ganinv.task.paired import Segmentation, Sketch

    channels = model.task.channels
    if name is None:
        return model.task
    if name == "image":
        task: Task = Image()
    else:
        task = Sketch() if name == "sketch" else Segmentation(classes=max(2, channels))
    if task.channels != channels:
        raise ConfigError(
            explain(
                f"an encoder of {channels} channels for --task {name}",
                f"one of {task.channels}",
                "pass --task sketch (1 channel, grey drawings) or --task segmentation (maps of as "
                "many classes as the encoder has channels)",
            )
        )
    return task


def read(data: bytes, task: Task, size: tuple[int, int], fit: Any) -> Tensor:
    """The bytes of an image file -> uint8 [C0,H,W], as the task's `read` takes it.

    Raises:
        ValueError, OSError: not such an image.
    """
    import numpy as np
    import torch

    from ganinv.dataset.codec import load, load_labels, resize

    labels = task.reads == "labels"
    image = load_labels(data) if labels else load(data)
    if task.reads == "grey":
        image = image.convert("L")
    pixels = np.atleast_3d(resize(image, size, fit, labels=labels))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def targets(names: list[str]) -> dict[str, str]:
    """name -> its reconstruction's: the same path, within OUT, with .png for its suffix; where two
    would meet, with .png added."""
    plain = {name: inside(name) for name in names}
    often = Counter(str(path.with_suffix(".png")) for path in plain.values())
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name, path in plain.items():
        target = str(path.with_suffix(".png"))
        target = target if often[target] == 1 else f"{path}.png"
        while target in taken:  # a name that ends in .jpg.png, beside one in .jpg
            target = f"{target}.png"
        found[name] = target
        taken.add(target)
    return found


def inside(name: str) -> PurePosixPath:
    """A relative path that leads nowhere else; a zip file or database may name anything."""
    parts = re.sub(r"[\x00-\x1f\\:]", "_", name).split("/")
    kept = [part for part in parts if part not in ("", ".", "..")]
    return PurePosixPath(*kept or ["_"])


def rows_of(text: str | None, num_ws: int) -> list[int]:
    """Rows of a list such as "8-17" or "8,9,10"; None: from the middle on, as the released 8 of 18.

    Raises:
        ConfigError: not such rows.
    """
    if text is None:
        return list(range(num_ws * 8 // 18, num_ws))
    rows: list[int] = []
    for part in text.split(","):
        edges = part.strip().split("-")
        if len(edges) > 2 or not all(edge.isdigit() for edge in edges):
            rows = []
            break
        rows += range(int(edges[0]), int(edges[-1]) + 1)
    if not rows or max(rows) >= num_ws:
        raise ConfigError(
            explain(
                f"--mix-layers {text}", f"rows from 0 to {num_ws - 1}", "e.g. --mix-layers 8-17"
            )
        )
    return sorted(set(rows))
