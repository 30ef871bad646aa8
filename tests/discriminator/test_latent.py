"""e4e's latent discriminator against the public one, and the pool of past codes."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from ganinv.core.errors import ConfigError
from ganinv.discriminator.latent import CodePool, LatentDiscriminator
from tests.golden_tools import case


def test_equals_the_reference() -> None:
    golden = case("e4e_latent_discriminator")
    network = LatentDiscriminator(w_dim=512, layers=4)
    assert sum(p.numel() for p in network.parameters()) == 788_481
    network.load_state_dict(golden.state())
    assert golden.error("logits", network(golden.input("w"))) < 1e-5


def test_other_widths_and_one_layer() -> None:
    assert LatentDiscriminator(w_dim=128, layers=3)(torch.zeros(5, 128)).shape == (5, 1)
    with pytest.raises(ConfigError, match="layers=1; expected at least 2"):
        LatentDiscriminator(w_dim=8, layers=1)


def named(*numbers: int) -> Tensor:
    """One code of width 1 for each number."""
    return torch.tensor(numbers, dtype=torch.float32).unsqueeze(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_fills_first_and_gives_back_what_it_was_given() -> None:
    pool = CodePool(size=5, w_dim=1)
    assert torch.equal(pool.query(named(1, 2, 3), seeded()), named(1, 2, 3))
    assert pool.count == 3 and torch.equal(pool.codes[:3], named(1, 2, 3))


def test_then_swaps_half_and_loses_none() -> None:
    pool, generator = CodePool(size=50, w_dim=1), seeded()
    pool.query(named(*range(50)), generator)
    given, shown = list(range(50, 2050)), []
    for start in range(50, 2050, 8):
        shown += pool.query(named(*range(start, start + 8)), generator).flatten().tolist()
    assert len(shown) == len(given)
    kept = pool.codes.flatten().tolist()
    assert sorted(shown + kept) == sorted(map(float, list(range(50)) + given))
    same = sum(a == b for a, b in zip(shown, given, strict=True))
    assert 0.45 < same / len(given) < 0.55


def test_sequential_semantics_within_a_batch() -> None:
    """The plain rule, one code after the other, with the same draws."""
    pool = CodePool(size=3, w_dim=1)
    pool.query(named(0, 1, 2), seeded(1))
    expected_pool, shown = [0.0, 1.0, 2.0], []
    draws = seeded(7)
    swap = torch.rand(20, generator=draws).tolist()
    place = torch.randint(3, (20,), generator=draws).tolist()
    for i, code in enumerate(range(10, 30)):
        if swap[i] < 0.5:
            shown.append(expected_pool[place[i]])
            expected_pool[place[i]] = float(code)
        else:
            shown.append(float(code))
    assert pool.query(named(*range(10, 30)), seeded(7)).flatten().tolist() == shown
    assert pool.codes.flatten().tolist() == expected_pool


def test_one_random_row_of_each_sample() -> None:
    codes = torch.arange(12.0).reshape(4, 3, 1)
    rows = CodePool(size=50, w_dim=1).query(codes, seeded()).flatten()
    assert ((rows // 3).long() == torch.arange(4)).all()
    many = CodePool(size=1, w_dim=1).eval().query(codes[:1].expand(999, 3, 1), seeded())
    assert many.unique().tolist() == [0, 1, 2]


def test_rests_in_eval_mode_and_detaches() -> None:
    pool = CodePool(size=2, w_dim=1).eval()
    given = named(1, 2).requires_grad_()
    assert torch.equal(pool.query(given, seeded()), named(1, 2)) and pool.count == 0
    assert not pool.train().query(given, seeded()).requires_grad


def test_ignores_the_global_generators() -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        random.seed(seed)
        pool = CodePool(size=2, w_dim=1)
        results.append([pool.query(named(*range(i, i + 6)), seeded(i)) for i in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_resumes_exactly() -> None:
    straight, cut = CodePool(size=4, w_dim=2), CodePool(size=4, w_dim=2)
    batches = torch.randn(6, 3, 2)
    for i in range(6):
        expected = straight.query(batches[i], seeded(i))
    for i in range(1):
        cut.query(batches[i], seeded(i))
    again = CodePool(size=4, w_dim=2)
    again.load_state_dict(cut.state_dict())
    assert again.count == 3
    for i in range(1, 6):
        resumed = again.query(batches[i], seeded(i))
    assert torch.equal(resumed, expected) and torch.equal(again.codes, straight.codes)
