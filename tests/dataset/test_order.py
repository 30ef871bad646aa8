"""The order is a function of (seed, images seen), whatever the ranks and workers."""

from itertools import islice

import numpy as np
import pytest

from ganinv.dataset.order import Order, Positions, eval_batches, permutation

COUNTS = [7, 1, 12, 5, 9]
STARTS = np.concatenate([[0], np.cumsum(COUNTS)])


def samples(start: int, batches: int, rank: int, world: int, batch: int = 3) -> list[list[int]]:
    order = Order(STARTS, seed=1, window=2)
    positions = Positions(start=start, batch_size=batch, rank=rank, world_size=world)
    return [[order(p) for p in found] for found in islice(positions, batches)]


def test_an_epoch_has_every_sample_once_and_epochs_differ() -> None:
    order = Order(STARTS, seed=1, window=2)
    epochs = [[order(34 * e + i) for i in range(34)] for e in range(3)]
    assert all(sorted(epoch) == list(range(34)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [Order(STARTS, seed=2, window=2)(i) for i in range(34)]


def test_a_window_mixes_its_shards_and_no_others() -> None:
    order = Order(STARTS, seed=3, window=2).epoch(0)
    shards = np.searchsorted(STARTS, order, side="right") - 1
    first = set(shards[: sum(COUNTS[s] for s in dict.fromkeys(shards[:1]))])
    assert len(first) <= 2
    seen = list(dict.fromkeys(shards))
    size = COUNTS[seen[0]] + COUNTS[seen[1]]
    assert set(shards[:size]) == set(seen[:2])
    assert set(shards[size:]).isdisjoint(seen[:2])


def test_the_permutation_never_changes() -> None:
    assert permutation(8, 0, "x").tolist() == [5, 1, 0, 6, 4, 3, 2, 7]


@pytest.mark.parametrize("seen", [0, 1, 5, 33, 34, 70])
def test_the_rest_does_not_depend_on_what_was_before(seen: int) -> None:
    whole = samples(0, 120, 0, 1, batch=1)
    assert samples(seen, 40, 0, 1, batch=1) == whole[seen : seen + 40]


def test_ranks_together_draw_the_stream_of_one() -> None:
    one = samples(10, 20, 0, 1, batch=6)
    two = [samples(10, 20, rank, 2) for rank in range(2)]
    for whole, *parts in zip(one, *two, strict=True):
        assert sorted(whole) == sorted(parts[0] + parts[1])
        assert whole[0::2] == parts[0] and whole[1::2] == parts[1]


def test_another_number_of_ranks_goes_on_with_the_same_images() -> None:
    """Two ranks for 5 steps of 3, then three ranks: nothing is lost and nothing comes twice."""
    before = [x for rank in range(2) for b in samples(0, 5, rank, 2) for x in b]
    after = [x for rank in range(3) for b in samples(30, 8, rank, 3) for x in b]
    whole = [x for b in samples(0, 34, 0, 1) for x in b]
    assert sorted(before) == sorted(whole[:30])
    assert sorted(after) == sorted(whole[30:102])


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_a_finite_set_is_shared_without_padding(world: int) -> None:
    parts = [x for rank in range(world) for b in eval_batches(20, 3, rank, world) for x in b]
    assert sorted(parts) == list(range(20))
