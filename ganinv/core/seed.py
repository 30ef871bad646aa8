"""Randomness as a function of names, never of history.

Every random number of a run is drawn from a key made of the run's seed, a purpose and the position
of the image in the global stream. A killed and resumed run, and a run on another number of ranks,
therefore draw the same numbers for the same image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any integers and words, e.g. `derive_seed(seed, "noise", position)`."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def randn_rows(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str) -> Tensor:
    """N(0,1) of shape `[len(seeds), *shape]`; sample i depends on `seeds[i]` alone.

    Drawn on the CPU, so that the numbers are the same on every device.
    """
    rows = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(rows).to(device, non_blocking=True)


def rand_rows(seeds: Sequence[int], device: torch.device | str) -> Tensor:
    """U[0,1) of shape `[len(seeds)]`; number i depends on `seeds[i]` alone."""
    rows = [torch.rand((), generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(rows).to(device, non_blocking=True)
