"""Image ranges. Everywhere in ganinv an image is RGB `[B,3,H,W]`: uint8 in `[0,255]` until it is
on the device, then float32 in `[-1,1]`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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


def pool_and_crop(image: Tensor, size: Sequence[int]) -> Tensor:
    """A square image [B,C,R,R] -> [B,C,H,W]: averaged down to the longer side and, of a wide or
    tall `size` (H, W), the middle of it; of its own size, as it is."""
    height, width = size
    side = max(height, width)
    if image.shape[-1] != side:
        image = F.adaptive_avg_pool2d(image, side)
    top, left = (side - height) // 2, (side - width) // 2
    return image[..., top : top + height, left : left + width]
