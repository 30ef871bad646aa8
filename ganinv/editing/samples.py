"""Samples of W: what SeFa, GANSpace and InterFaceGAN know of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ganinv.core.errors import config_error
from ganinv.core.seed import generator_of
from ganinv.generator.importer.bundle import AnyGenerator

CHUNK = 1000  # samples at a time


@torch.no_grad()
def sample_w(G: AnyGenerator, samples: int, seed: int) -> Iterator[Tensor]:
    """w [n,D] of n <= `CHUNK` samples of z at a time, not truncated; sample i is a function of
    (seed, i).

    Raises:
        ConfigError: fewer than two samples; a generator whose W depends on a label, or is another
            one for each layer.
    """
    if samples < 2:
        raise config_error(f"{samples} samples", "at least 2, better 10,000", "ask for more")
    if getattr(G, "c_dim", 0) or G.architecture.get("c_dim"):
        raise config_error("a conditional generator", "one whose W depends on z alone",
                           "use an unconditional generator")  # fmt: skip
    for first in range(0, samples, CHUNK):
        z = torch.randn(min(CHUNK, samples - first), G.z_dim,
                        generator=generator_of(seed, "samples of W", first))  # fmt: skip
        w = G.mapping(z.to(G.w_avg))
        if w.ndim != 2:
            raise config_error("a generator with a w for each layer (a layer-wise mapping)",
                               "one with a single w", "use another generator")  # fmt: skip
        yield w


def spread(G: AnyGenerator, vectors: Tensor, samples: int, seed: int) -> list[float]:
    """The standard deviation of W along each of vectors [K,D], of length 1."""
    along = torch.cat([w.double() @ vectors.to(w).double().t() for w in sample_w(G, samples, seed)])
    return [float(s) for s in along.std(0)]
