"""The noise maps of a generator as a code: where they start, how they are kept like noise.

    n  name -> [B,1,r,r]   one map for every buffer of G's synthesis; StyleGAN3 has none

Source: Karras et al. (StyleGAN2), arXiv 1912.04958, app. D. The regulariser sees each map as a
pyramid, r, r/2 ... 8 px, and punishes
what neighbours have in common at every scale:

    R(n) = sum over maps and scales of (mean n n_x)^2 + (mean n n_y)^2
    n_x, n_y: n moved by a px to the right and down, around the edges

Everything is per image: means run over the map of one image, never over the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.interface import Target
from ganinv.core.seed import derive_seed, randn_rows

SMALLEST = 8  # px of the last scale
PREFIX = "noise:"  # of the leaves


def buffers(G: nn.Module) -> dict[str, Tensor]:
    """name -> the stored map [r,r] of every layer that adds noise."""
    return {n: b for n, b in G.named_buffers() if n.endswith("noise_const")}


def stored(G: nn.Module, count: int) -> dict[str, Tensor]:
    """name -> [count,1,r,r], the stored maps."""
    return {n: b.expand(count, 1, -1, -1).clone() for n, b in buffers(G).items()}


def white(G: nn.Module, target: Target) -> dict[str, Tensor]:
    """name -> [B,1,r,r] from N(0,1); image i's are a function of seed i and the name."""
    maps = {}
    for name, buffer in buffers(G).items():
        seeds = [derive_seed(seed, "noise map", name) for seed in target.seeds]
        maps[name] = randn_rows(seeds, (1, *buffer.shape), buffer.device).to(buffer.dtype)
    return maps


def normalise(maps: Mapping[str, Tensor]) -> None:
    """Each map of each image to mean 0 and root mean square 1, in place."""
    for n in maps.values():
        n -= n.mean((1, 2, 3), keepdim=True)
        n *= n.square().mean((1, 2, 3), keepdim=True).rsqrt()


def regulariser(maps: Mapping[str, Tensor]) -> Tensor:
    """R(n), [B]."""
    parts = []
    for n in maps.values():
        while True:
            parts += [(n * n.roll(1, axis)).mean((1, 2, 3)).square() for axis in (3, 2)]
            if n.shape[-1] <= SMALLEST:
                break
            n = F.avg_pool2d(n, 2)
    return torch.stack(parts).sum(0)


def as_leaves(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The maps under names that no other leaf has."""
    return {PREFIX + name: n for name, n in maps.items()}


def of_leaves(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The maps among the leaves, by the buffers' names."""
    return {k.removeprefix(PREFIX): n for k, n in leaves.items() if k.startswith(PREFIX)}
