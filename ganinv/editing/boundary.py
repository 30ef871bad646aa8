"""Directions in a latent space, from the files in which they are published.

.npy           InterFaceGAN's and IDInvert's boundaries, see `core/safe/npy.py`
.pt            a bare tensor of torch.save, [D], [1,D] or [1,L,D], as e4e's directions are
.safetensors   what `ganinv import` makes of them: `boundary`, and which layers it moves
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import WeightsError, explain, shown
from ganinv.core.safe.io import check_file, load_tensors, read_safetensors
from ganinv.core.safe.npy import LAYERS, MAX_BYTES, Boundary
from ganinv.core.safe.npy import read_boundary as read_npy

FORMAT = "ganinv-boundary"


def is_direction(content: Any) -> bool:
    """Whether a torch file is a bare tensor of a direction's shape."""
    return isinstance(content, Tensor) and content.ndim in (1, 2, 3)


def read_boundary(path: str | Path) -> Boundary:
    """A direction: [1,D] or [1,L,D] float32, and the layers of wp that it moves.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a direction, more than data, or numbers that are not finite.
    """
    path = Path(path)
    check_file(path, "boundary file")
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{path} is larger than {MAX_BYTES} bytes; expected a boundary")
    if path.suffix == ".safetensors":
        return _own(path)
    if path.suffix == ".npy":
        return read_npy(path)
    content = load_tensors(path)
    if not is_direction(content):
        raise _refused(path, f"{shown(content)} instead of a tensor")
    return Boundary(_checked(content if content.ndim > 1 else content[None], path), None)


def _own(path: Path) -> Boundary:
    tensors, metadata = read_safetensors(path)
    form, layers = metadata.get("format"), metadata.get("layers")
    if form != FORMAT or set(tensors) != {"boundary"}:
        raise _refused(path, f"format={shown(form)}")
    if layers is not None and (
        type(layers) is not list or any(type(n) is not int or not 0 <= n < LAYERS for n in layers)
    ):
        raise _refused(path, "layers that are no list of numbers")
    return Boundary(_checked(tensors["boundary"], path), layers)


def _checked(direction: Tensor, path: Path) -> Tensor:
    if direction.ndim not in (2, 3) or len(direction) != 1 or not direction.numel():
        raise _refused(path, f"shape {list(direction.shape)}")
    if not direction.is_floating_point() or not bool(torch.isfinite(direction).all()):
        raise _refused(path, "numbers that are not finite")
    return direction.float()


def _refused(path: Path, fault: str) -> WeightsError:
    return WeightsError(
        explain(
            f"{path} with {fault}",
            "a direction of shape [D], [1,D] or [1,L,D]",
            "pass the published file, or save the direction with numpy.save as float32",
        )
    )
