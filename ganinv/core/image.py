"""Image ranges. Everywhere in ganinv an image is RGB `[B,3,H,W]`: uint8 in `[0,255]` until it is
on the device, then float32 in `[-1,1]`."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(image: Tensor) -> Tensor:
    """uint8 `[0,255]` -> float32 `[-1,1]`, exactly `x / 127.5 - 1`; any shape.

    Raises:
        TypeError: the image is not uint8 (it may already be in `[-1,1]`).
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"to_unit was given {image.dtype}; expected uint8 in [0,255]")
    return image.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(image: Tensor) -> Tensor:
    """float `[-1,1]` (clamped) -> uint8 `[0,255]`, rounded to nearest; inverse of `to_unit`."""
    return image.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
