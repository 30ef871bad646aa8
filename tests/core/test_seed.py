"""Random numbers as functions of seeds: which, where, and how they are distributed."""

from __future__ import annotations

import math

import pytest
import torch

from ganinv.core import seed as drawing
from ganinv.core.philox import WORD
from ganinv.core.seed import derive_seed, rand_rows, randint_rows, randn_maps, randn_rows
from tests.core.test_philox import words_of

MANY = [derive_seed("many", i) for i in range(4)]


def test_a_number_is_the_formula_s() -> None:
    """Element 6 of an image: the third word of counter 1, with the fourth for the angle."""
    words = words_of(1, 0, 0, 0, 12345, 0)
    radius = math.sqrt(-2 * math.log((words[2] + 1) / 2**32))
    angle = 2 * math.pi * words[3] / 2**32
    found = randn_rows([12345], (8,), "cpu")[0]
    assert found[6].item() == pytest.approx(radius * math.cos(angle), abs=1e-6)
    assert found[7].item() == pytest.approx(radius * math.sin(angle), abs=1e-6)
    assert rand_rows([12345], "cpu", (8,))[0, 6].item() == pytest.approx((words[2] + 1) / 2**32)
    assert randint_rows([12345], 10, 8, "cpu")[0, 6].item() == words[2] * 10 // 2**32


def test_an_image_s_numbers_ignore_its_neighbours_and_what_else_is_drawn() -> None:
    together = randn_rows(MANY, (3, 5), "cpu")
    for i, seed in enumerate(MANY):
        assert torch.equal(randn_rows([seed], (3, 5), "cpu")[0], together[i])
    assert torch.equal(randn_rows(MANY, (15,), "cpu").view(4, 3, 5), together)
    first, second = randn_maps(MANY, [(3, 5), (1, 2, 2)], "cpu")
    assert torch.equal(first, together)
    assert torch.equal(second.flatten(1), randn_rows(MANY, (19,), "cpu")[:, 15:])
    assert len(set(together.flatten().tolist())) == 60


def test_the_size_of_a_chunk_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = randn_rows(MANY, (1001,), "cpu")
    for size in (1, 12, 400):
        monkeypatch.setattr(drawing, "CPU_CHUNK", size)
        assert torch.equal(randn_rows(MANY, (1001,), "cpu"), whole)


def test_float64_has_the_same_numbers_with_more_digits() -> None:
    single = randn_rows(MANY, (999,), "cpu")
    try:
        torch.set_default_dtype(torch.float64)
        double = randn_rows(MANY, (999,), "cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=5e-6)


def test_normal_uniform_and_dice() -> None:
    """The first four moments and the tails, independence of neighbours, and 7 sides."""
    x = randn_rows(MANY, (250_000,), "cpu").double().flatten()
    for power, expected in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert (x**power).mean().item() == pytest.approx(expected, abs=0.03)
    for limit in (1.0, 2.0, 3.0, 4.0):
        share = (x.abs() > limit).double().mean().item()
        assert share == pytest.approx(math.erfc(limit / math.sqrt(2)), rel=0.15, abs=1e-5)
    for lag in (1, 2, 3, 4):
        assert abs((x[lag:] * x[:-lag]).mean().item()) < 0.005
    u = rand_rows(MANY, "cpu", (250_000,)).flatten()
    assert 0 < u.min() and u.max() <= 1
    assert torch.histc(u, 20, 0, 1).div(50_000).sub(1).abs().max() < 0.02
    sides = randint_rows(MANY, 7, 70_000, "cpu").flatten().bincount()
    assert len(sides) == 7 and sides.div(40_000).sub(1).abs().max() < 0.03


def test_the_ends_of_a_word_are_finite_numbers() -> None:
    """Word 0 is the least uniform number, the largest word is 1: never log 0."""
    ends = torch.tensor([[0, WORD]])
    found = torch.stack(drawing._normal([ends, ends, ends, ends]))
    assert found.isfinite().all() and found.abs().max() == pytest.approx(6.66, abs=0.01)
    assert drawing._uniform([ends])[0].tolist() == [[pytest.approx(2.0**-32), 1.0]]


def test_seeds_are_all_that_is_uploaded() -> None:
    """On torch's meta device a CPU tensor of numbers would be refused; seeds take eight bytes."""
    drawn = randn_maps(MANY, [(1, 4, 4), (1, 8, 8)], "meta")
    assert [tuple(x.shape) for x in drawn] == [(4, 1, 4, 4), (4, 1, 8, 8)]
    assert all(x.device.type == "meta" for x in drawn)
