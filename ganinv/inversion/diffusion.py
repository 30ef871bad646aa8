"""Semantic diffusion: what is in a box of one image, grown into the scene of another.

Source: Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv 2004.00049, sec. 4.3.

    x = target inside the box, context outside           wp starts at E(x)
    L = |m (x - G(wp))|^2 + perceptual d(m x, m G(wp)) + domain mean (wp - E(G(wp)))^2   m: 1 in it

The target stays, and G makes surroundings for it out of the context's that E saw. The image
crossover of Image2StyleGAN++ (arXiv 1911.11544, sec. 5.2) is the same with a mask of 1 everywhere.

Differs from the released code in: the domain term is the method's to weigh (released: 0); the box
is a part of the image's side (released: 110 px about row 145, column 125 of 256, `FACE`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion, Target

FACE = (90 / 256, 200 / 256, 70 / 256, 180 / 256)  # of aligned faces, as released


def paste(target: Tensor, context: Tensor, box: Sequence[float] = FACE) -> tuple[Tensor, Tensor]:
    """target [B,3,H,W] and context [B,3,H,W] -> the composite x [B,3,H,W] and m [B,1,H,W].

    Args:
        target: what is kept inside the box.
        context: what is outside.
        box: top, bottom, left, right, as parts of the side.

    Raises:
        ConfigError: images of different shapes, or a box without a pixel in them.
    """
    if target.shape != context.shape:
        raise ConfigError(
            explain(f"a target of {list(target.shape)} with a context of {list(context.shape)}",
                    "two batches of the same size", "crop and resize both alike")
        )  # fmt: skip
    height, width = target.shape[-2:]
    sides = (height, height, width, width)
    top, bottom, left, right = (round(part * side) for part, side in zip(box, sides, strict=True))
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ConfigError(
            explain(f"the box {[round(float(part), 3) for part in box]}", "top < bottom and "
                    "left < right, parts of the side from 0 to 1", "e.g. 0.35, 0.78, 0.27, 0.7")
        )  # fmt: skip
    mask = torch.zeros_like(target[:, :1])
    mask[..., top:bottom, left:right] = 1
    return torch.where(mask > 0, target, context), mask


def diffuse(
    invert: Callable[[Target], Inversion],
    target: Tensor,
    context: Tensor,
    *,
    keys: Sequence[str],
    seeds: Sequence[int],
    box: Sequence[float] = FACE,
) -> Inversion:
    """The inversion of the composite, of which only the box counts.

    Args:
        invert: `DomainRegularised`, or another method that knows masks.
        target: [B,3,H,W] in [-1,1].
        context: likewise.
        keys: a name for each pair.
        seeds: of each pair's random numbers.
        box: see `paste`.

    Raises:
        ConfigError: as `paste`; what the method refuses.
    """
    x, mask = paste(target, context, box)
    return invert(Target(x=x, s=x, key=list(keys), seeds=list(seeds), mask=mask))
