"""Edits of an evaluation: the first images of every inversion method, edited, as strips.

What an edit is, `ganinv/metric/metric.py:Edit` says. The strips lie beside the pictures of finished
batches, so that any process finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganinv.config.instantiate import instantiate
from ganinv.core.errors import config_error
from ganinv.core.image import to_uint8
from ganinv.core.interface import Inversion
from ganinv.core.safe.io import read_safetensors, write_safetensors
from ganinv.inversion.bdinvert import BDInvert
from ganinv.inversion.model import Model
from ganinv.inversion.optimise import Optimise
from ganinv.metric.metric import Edit

SHOWN = 8  # images of a strip


@dataclass
class Strip:
    """One edit of one inversion method's first images."""

    edit: str
    labels: list[str]  # of the S strengths
    keys: list[str]  # of the N images
    images: list[Tensor]  # N times uint8 [S,3,h,w]


def build_edits(
    nodes: DictConfig | None, model: Model, inversions: Mapping[str, Any]
) -> dict[str, Edit]:
    """The edits of a config's `editing` group by name.

    Raises:
        ConfigError: one that moves f, where no method finds one; as the constructors.
        WeightsError, WeightsMissing: directions that are not there, or of another generator.
    """
    made: dict[str, Edit] = {
        str(name): instantiate(node, generator=model.G) for name, node in (nodes or {}).items()
    }
    for name, edit in made.items():
        if not edit.strengths:
            raise config_error(f"editing.{name}.strengths=[]", "at least one", "name some")
        if edit.needs_f and not any(may_find_f(method) for method in inversions.values()):
            raise config_error(
                f"editing={name} with inversion=[{','.join(inversions)}], none of which finds an f",
                "bdinvert among them: geometric edits move its f",
                "add inversion=[bdinvert], or leave the edit out",
            )  # fmt: skip
    return made


def may_find_f(method: Any) -> bool:
    """Whether a method is BDInvert or starts from it."""
    parts = vars(method).values() if isinstance(method, Optimise) else ()
    return isinstance(method, BDInvert) or any(may_find_f(part) for part in parts)


def rows_of(found: Inversion, rows: Sequence[int]) -> Inversion:
    """The inversion of some images of its batch."""

    def pick(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[list(rows)]

    def pick_all(maps: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        return None if maps is None else {name: value[list(rows)] for name, value in maps.items()}

    return Inversion(
        found.wp[list(rows)], pick(found.f), pick_all(found.noise), pick_all(found.weights)
    )


@torch.no_grad()
def edited(
    edits: Mapping[str, Edit], model: Model, found: Inversion, size: Sequence[int]
) -> dict[str, Tensor]:
    """name -> uint8 [S,B,3,H,W] of every edit that this inversion can have.

    Args:
        edits: by name.
        model: E + G.
        found: of B images.
        size: (H, W) px of the pictures.
    """
    return {
        name: torch.stack(
            [to_uint8(model.render(edit(found, strength), size)) for strength in edit.strengths]
        )
        for name, edit in edits.items()
        if found.f is not None or not edit.needs_f
    }


def keep_strips(
    folder: Path, pictures: Mapping[str, Tensor], keys: Sequence[str], numbers: Sequence[int]
) -> None:
    """Keep the pictures of `edited`.

    Args:
        folder: of one inversion method.
        pictures: as `edited` gives them.
        keys: of the B images.
        numbers: their places in the set.
    """
    for name, images in pictures.items():
        for i, number in enumerate(numbers):
            file = folder / "edits" / name / f"{number:08d}.safetensors"
            write_safetensors(file, {"images": images[:, i].cpu()}, {"key": keys[i]})


def read_strips(folder: Path, edits: Mapping[str, Edit]) -> list[Strip]:
    """The strips of one inversion method, in the order of the config."""
    strips = []
    for name, edit in edits.items():
        files = sorted((folder / "edits" / name).glob("*.safetensors"))
        read = [read_safetensors(file) for file in files]
        if read:
            keys = [known["key"] for _, known in read]
            images = [tensors["images"] for tensors, _ in read]
            strips.append(Strip(name, [edit.label(s) for s in edit.strengths], keys, images))
    return strips
