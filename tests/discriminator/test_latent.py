"""e4e's latent discriminator against the public one, and the pool of past codes."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from ganinv.core.errors import ConfigError
from ganinv.core.seed import derive_seed, randint_rows
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


def test_fills_first_and_gives_back_what_it_was_given() -> None:
    pool = CodePool(size=5, w_dim=1)
    assert torch.equal(pool.query(named(1, 2, 3), 0), named(1, 2, 3))
    assert pool.count == 3 and torch.equal(pool.codes[:3], named(1, 2, 3))


def test_then_swaps_half_and_loses_none() -> None:
    pool = CodePool(size=50, w_dim=1)
    pool.query(named(*range(50)), 0)
    given, shown = list(range(50, 2050)), []
    for start in range(50, 2050, 8):
        shown += pool.query(named(*range(start, start + 8)), start).flatten().tolist()
    assert len(shown) == len(given)
    kept = pool.codes.flatten().tolist()
    assert sorted(shown + kept) == sorted(map(float, list(range(50)) + given))
    same = sum(a == b for a, b in zip(shown, given, strict=True))
    assert 0.45 < same / len(given) < 0.55


@pytest.mark.parametrize("held", [3, 1, 0])
def test_sequential_semantics_within_a_batch(held: int) -> None:
    """The plain rule, one code after the other, with the same draws."""
    pool, codes = CodePool(size=3, w_dim=1), list(range(10, 30))
    if held:
        pool.query(named(*range(held)), 1)
    kept, shown = [float(i) for i in range(held)], []
    swap = randint_rows([derive_seed(7, "swap")], 2, 20, "cpu")[0].tolist()
    place = randint_rows([derive_seed(7, "place")], 3, 20, "cpu")[0].tolist()
    for i, code in enumerate(codes):
        if len(kept) < 3:
            kept.append(float(code))
            shown.append(float(code))
        elif swap[i]:
            shown.append(kept[place[i]])
            kept[place[i]] = float(code)
        else:
            shown.append(float(code))
    assert any(code != given for code, given in zip(shown, codes, strict=True))
    assert any(code in codes for code, given in zip(shown, codes, strict=True) if code != given)
    assert pool.query(named(*codes), 7).flatten().tolist() == shown
    assert pool.codes.flatten().tolist() == kept


def test_one_random_row_of_each_sample() -> None:
    codes = torch.arange(12.0).reshape(4, 3, 1)
    rows = CodePool(size=50, w_dim=1).query(codes, 0).flatten()
    assert ((rows // 3).long() == torch.arange(4)).all()
    many = CodePool(size=1, w_dim=1).eval().query(codes[:1].expand(999, 3, 1), 0)
    assert many.unique().tolist() == [0, 1, 2]


def test_rests_in_eval_mode_and_detaches() -> None:
    pool = CodePool(size=2, w_dim=1).eval()
    given = named(1, 2).requires_grad_()
    assert torch.equal(pool.query(given, 0), named(1, 2)) and pool.count == 0
    assert not pool.train().query(given, 0).requires_grad


def test_ignores_the_global_generators() -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        random.seed(seed)
        pool = CodePool(size=2, w_dim=1)
        results.append([pool.query(named(*range(i, i + 6)), i) for i in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_resumes_exactly() -> None:
    straight, cut = CodePool(size=4, w_dim=2), CodePool(size=4, w_dim=2)
    batches = torch.randn(6, 3, 2)
    for i in range(6):
        expected = straight.query(batches[i], i)
    for i in range(1):
        cut.query(batches[i], i)
    again = CodePool(size=4, w_dim=2)
    again.load_state_dict(cut.state_dict())
    assert again.count == 3
    for i in range(1, 6):
        resumed = again.query(batches[i], i)
    assert torch.equal(resumed, expected) and torch.equal(again.codes, straight.codes)
