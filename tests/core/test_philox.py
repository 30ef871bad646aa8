"""Philox4x32-10 against the known answers of Random123 (`examples/kat_vectors` there)."""

from __future__ import annotations

import pytest
import torch

from ganinv.core.philox import WORD, counters, keys_of, philox

KNOWN = {  # counter and key -> words
    (0, 0, 0, 0, 0, 0): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    (WORD,) * 6: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0): (
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1
    ),
}  # fmt: skip


def words_of(*given: int) -> tuple[int, ...]:
    """Of a counter and a key of two."""
    tensors = [torch.tensor([[word]]) for word in given]
    return tuple(int(word) for word in philox(tensors[:4], tensors[4:]))


@pytest.mark.parametrize("given", KNOWN)
def test_known_answers(given: tuple[int, ...]) -> None:
    """The products of large words overflow int64."""
    assert words_of(*given) == KNOWN[given]


def test_rows_and_columns_are_those_of_single_numbers() -> None:
    seeds = [0, 5, 2**40 + 3, 2**63 - 1]
    key = keys_of(seeds, "cpu")
    words = philox(counters(7, 3, key[0]), key)
    for i, seed in enumerate(seeds):
        for j in range(3):
            alone = words_of(7 + j, 0, 0, 0, seed & WORD, seed >> 32)
            assert tuple(int(word[i, j]) for word in words) == alone


def test_it_is_one_graph_for_the_compiler() -> None:
    """The traced operations, run again on other inputs, give the same integers."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def draw(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return torch.stack(philox(counters(9, 4, low), (low, high)))

    graph = make_fx(draw, tracing_mode="fake")(*keys_of([1, 2], "cpu"))
    key = keys_of([3, 2**62 + 9], "cpu")
    assert torch.equal(graph(*key), draw(*key))
