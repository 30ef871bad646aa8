"""Randomness as a function of names, never of history.

Every random number of a run is drawn from a key made of the run's seed, a purpose and the position
of the image in the global stream. A killed and resumed run, and a run on another number of ranks,
therefore draw the same numbers for the same image.

    number e of an image = word e mod 4 of Philox(counter e div 4, key = the image's seed)

Seeds are made on the CPU, the numbers on the device that uses them (`philox.py`): the integers are
the same everywhere, and what is computed from them agrees to rounding.

    U = (word + 1) 2^-32  in (0,1]            n-sided die  (word * n) div 2^32
    N, N' = sqrt(-2 ln U) (cos, sin)(2 pi 2^-32 word')      Box and Muller, two words for two
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ganinv.core.philox import Words, counters, keys_of, philox

Device = torch.device | str
SPAN = 2.0**32  # values of a word
CPU_CHUNK = 1 << 15  # counters at a time on a CPU, so that its cache holds what a round touches


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any integers and words, e.g. `derive_seed(seed, "noise", position)`."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`, for what is drawn once and not in a step."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def randn_rows(seeds: Sequence[int], shape: Sequence[int], device: Device) -> Tensor:
    """N(0,1) of shape `[len(seeds), *shape]`; sample i depends on `seeds[i]` alone."""
    return randn_maps(seeds, [shape], device)[0]


def randn_maps(
    seeds: Sequence[int], shapes: Sequence[Sequence[int]], device: Device
) -> list[Tensor]:
    """N(0,1), one tensor `[len(seeds), *shape]` for each shape, all in one draw; sample i depends
    on `seeds[i]` and on the sizes of the shapes before its own."""
    sizes = [math.prod(shape) for shape in shapes]
    drawn = _drawn(seeds, sum(sizes), device, _normal, torch.get_default_dtype())
    parts = drawn.split(sizes, 1)
    return [x.reshape(len(seeds), *shape) for x, shape in zip(parts, shapes, strict=True)]


def rand_rows(seeds: Sequence[int], device: Device, shape: Sequence[int] = ()) -> Tensor:
    """U(0,1] of shape `[len(seeds), *shape]`; sample i depends on `seeds[i]` alone."""
    drawn = _drawn(seeds, math.prod(shape), device, _uniform, torch.get_default_dtype())
    return drawn.reshape(len(seeds), *shape)


def randint_rows(seeds: Sequence[int], below: int, count: int, device: Device) -> Tensor:
    """int64 in [0, below), `[len(seeds), count]`, below 2^31; row i depends on `seeds[i]` alone."""
    return _drawn(
        seeds, count, device, lambda words: [word * below >> 32 for word in words], torch.int64
    )


Turn = Callable[[Words], Sequence[Tensor]]  # of four words [B,n] into four numbers [B,n]


def _drawn(
    seeds: Sequence[int], count: int, device: Device, turned: Turn, dtype: torch.dtype
) -> Tensor:
    """[B,count] of what the words are turned into, word after word."""
    key, blocks = keys_of(seeds, device), -(-count // 4)
    drawn = torch.empty(len(seeds), blocks, 4, dtype=dtype, device=device)
    at_once = blocks
    if drawn.device.type == "cpu" and not torch.compiler.is_compiling():
        at_once = CPU_CHUNK // max(1, len(seeds))
    at_once = max(1, at_once)
    for first in range(0, blocks, at_once):
        part = drawn[:, first : first + at_once]
        for j, number in enumerate(turned(philox(counters(first, part.shape[1], key[0]), key))):
            part[..., j] = number
    return drawn.flatten(1)[:, :count]


def _uniform(words: Sequence[Tensor]) -> list[Tensor]:
    return [(word + 1).to(torch.get_default_dtype()) / SPAN for word in words]


def _normal(words: Sequence[Tensor]) -> list[Tensor]:
    numbers = []
    for first, second in (words[:2], words[2:]):
        radius = (_uniform([first])[0].log() * -2).sqrt()
        angle = second.to(radius.dtype) * (2 * math.pi / SPAN)
        numbers += [radius * angle.cos(), radius * angle.sin()]
    return numbers
