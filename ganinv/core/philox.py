"""Philox4x32-10, a counter-based generator of random integers, in torch's integer operations.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, sec. 3.3; the known
answers of Random123 are in the test.

    counter c0 c1 c2 c3, key k0 k1    words of 32 bits, here in int64     M0 M1 W0 W1  constants
    a round:   c0, c1, c2, c3 <- hi(M1 c2) ^ c1 ^ k0,  lo(M1 c2),  hi(M0 c0) ^ c3 ^ k1,  lo(M0 c0)
    after it:  k0, k1 <- k0 + W0, k1 + W1

Nothing is remembered between two numbers: each is a function of its place alone, so that they are
drawn where they are used, and the integers are the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDS = 10
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF
Words = tuple[Tensor, Tensor, Tensor, Tensor]  # int64 in [0, 2^32)


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Words:
    """The four words of each counter under its key.

    Args:
        counter: c0 ... c3, int64 in [0, 2^32), of shapes that broadcast to one; the first rounds
            are as small as these are.
        key: k0, k1, likewise.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # int64 wraps around, which leaves all 64 bits of a product; what stands above the low
        # word of c1 and c3 is cut off by the mask
        p0, p1 = c0 * M0, c2 * M1
        c0 = ((p1 >> 32) ^ c1 ^ k0) & WORD
        c2 = ((p0 >> 32) ^ c3 ^ k1) & WORD
        c1, c3 = p1, p0
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return c0, c1 & WORD, c2, c3 & WORD


def keys_of(seeds: Sequence[int], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """k0 and k1 [B,1] of seeds in [0, 2^63): eight bytes a seed, which nothing waits for."""
    key = torch.tensor(list(seeds), dtype=torch.int64)[:, None].to(device, non_blocking=True)
    return key & WORD, key >> 32


def counters(first: int, count: int, key: Tensor) -> Words:
    """The counters first, first + 1, ... below 2^32, [1,count], on the device of the key; the three
    upper words are 0, [1,1]."""
    zero = key.new_zeros((1, 1))
    return torch.arange(first, first + count, device=key.device)[None], zero, zero, zero
