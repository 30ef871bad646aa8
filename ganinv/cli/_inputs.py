"""A user's own images as an encoder reads them, and the names of what is made of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ganinv.core.command import printable
from ganinv.core.errors import ConfigError, explain

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.dataset.source import Source
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


def read_mask(masks: Source, name: str, size: tuple[int, int], fit: Any) -> Tensor:
    """The mask of an image as the image was cropped: uint8 [1,H,W], 1 where it counts (at least
    half white); 1 everywhere for an image that has no mask."""
    import numpy as np
    import torch

    from ganinv.dataset.codec import load, resize

    if name not in {known for known, _ in masks.items()}:
        return torch.ones(1, *size, dtype=torch.uint8)
    grey = load(masks.read(name)).convert("L")
    pixels = resize(grey, size, fit, labels=True)
    return torch.from_numpy((np.asarray(pixels) >= 128).astype(np.uint8))[None]


def compared(model: Model, size: int | None) -> tuple[int, int]:
    """(H, W) px at which a per-image method compares images: a side, or None for E's own size."""
    return model.input_size if size is None else (size, size)


def open_masks(path: Path | None, source: Source, size: tuple[int, int], fit: Any) -> Source | None:
    """The masks of a folder; None where none is given. Errors as `check_masks`."""
    from ganinv.dataset.source import open_source

    if path is None:
        return None
    masks = open_source(path)
    check_masks(masks, source, size, fit)
    return masks


def check_masks(masks: Source, source: Source, size: tuple[int, int], fit: Any) -> None:
    """Refuse masks before the first step.

    Args:
        masks: of the images' names.
        source: the images.
        size: (H, W) px at which images are compared.
        fit: how they are brought to it.

    Raises:
        ConfigError: a mask that fits no image: of a name that none has, of another size than its
            image, or black wherever the cropped image is, so that nothing counts.
    """
    from ganinv.dataset.codec import load

    names = {name for name, _ in source.items()}
    found = [name for name, _ in masks.items()]
    if not found:
        raise ConfigError(explain("--masks without any image", "a mask of each image's name, white "
                                  "where it counts", "check the path"))  # fmt: skip
    for name in found:
        if name not in names:
            raise ConfigError(
                explain(f"--masks with {printable(name)}, which fits no image",
                        f"the name of one, e.g. {printable(min(names))}",
                        "rename it, suffix and all, or take it out")
            )  # fmt: skip
        try:
            mask, image = load(masks.read(name)), load(source.read(name))
        except (OSError, ValueError) as error:
            if _reads(masks, name):
                continue  # the image cannot be read, which is told with the others
            raise ConfigError(
                explain(f"--masks with {printable(name)}, which cannot be read ({error})",
                        "an image, white where it counts", "write it again")
            ) from error  # fmt: skip
        if mask.size != image.size:
            sizes = [f"{height} x {width} px" for width, height in (mask.size, image.size)]
            raise ConfigError(
                explain(f"the mask {printable(name)} of {sizes[0]}", f"its image's {sizes[1]}",
                        "draw it on the image itself")
            )  # fmt: skip
        if not read_mask(masks, name, size, fit).any():
            highest: Any = mask.convert("L").getextrema()[1]
            left = f"in what is left of it at {size[0]} x {size[1]} px"
            where = "everywhere" if highest < 128 else left
            raise ConfigError(
                explain(f"the mask {printable(name)}, which is black {where}",
                        "white where the image counts", "correct that mask")
            )  # fmt: skip


def _reads(source: Source, name: str) -> bool:
    from ganinv.dataset.codec import load

    try:
        load(source.read(name))
    except (OSError, ValueError):
        return False
    return True


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


def layers_of(text: str | None, num_ws: int) -> list[int]:
    """Layers of a list such as "8-17" or "8,9,10"; None: the upper ones, as the released 8 of 18.

    Raises:
        ConfigError: no such layers.
    """
    if text is None:
        return list(range(num_ws * 8 // 18, num_ws))
    layers: list[int] = []
    for part in text.split(","):
        edges = part.strip().split("-")
        if len(edges) > 2 or not all(edge.isdigit() for edge in edges):
            layers = []
            break
        layers += range(int(edges[0]), int(edges[-1]) + 1)
    if not layers or max(layers) >= num_ws:
        raise ConfigError(
            explain(
                f"--mix-layers {text}", f"layers from 0 to {num_ws - 1}", "e.g. --mix-layers 8-17"
            )
        )
    return sorted(set(layers))
