"""Equivariance of a generator whose image is f, and of one that adds what does not move."""

import math

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.core.interface import Inversion
from ganinv.editing.geometric import Rotate, Scale, Shift
from ganinv.metric.equivariance import Equivariance
from ganinv.metric.metric import Sample
from tests.metric.fakes import Along, given


class G:
    resolution = 64


class Model:
    """f in squares of 8 px, and a pattern that stays."""

    def __init__(self, pattern=0.0):
        self.pattern = pattern

    def render(self, found, size=None, noise="const", seeds=None):
        return found.f.repeat_interleave(8, 2).repeat_interleave(8, 3) + self.pattern


def metric(edit="shift", **settings):
    found = Equivariance(
        **{"column": "eq", "edit": edit, "cells": [-1, 2], "strengths": None} | settings
    )
    common = {"padding": "border", "generator": G}
    edits = {
        "shift": Shift(strengths=[0], towards="right", **common),
        "down": Shift(strengths=[0], towards="down", **common),
        "rotate": Rotate(strengths=[0], **common),
        "scale": Scale(strengths=[1], **common),
        "smile": Along([0.0, 0.0, 0.0]),
    }
    found.connect(given(edits))
    return found


def sample(model, count=3):
    f = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = torch.zeros(count, 3, 64, 64)
    return Sample(image, image, Inversion(torch.zeros(count, 2, 3), f=f), model=model)


@pytest.mark.parametrize("edit", ["shift", "down"])
def test_what_moves_with_f_has_no_error(edit):
    found = metric(edit)
    rows = found(sample(Model()))
    assert rows["values"].tolist() == [[3 * 64 * 56, 3 * 64 * 48]] * 3  # what was inside
    assert found.compute(rows)["eq"] > 100


def test_a_pattern_that_stays_is_the_error():
    """20 log10 2 - 10 log10 of the mean squared difference of the pattern and itself, moved."""
    P = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = metric()
    rows = found(sample(Model(P)))
    left = (P[..., 8:] - P[..., :-8]).double().square()  # by a cell to the left
    right = (P[..., :-16] - P[..., 16:]).double().square()
    mean = (left.sum() + right.sum()) / (left.numel() + right.numel())

    def decibel(value):
        return 20 * math.log10(2) - 10 * math.log10(float(value))

    assert found.compute(rows)["eq"] == pytest.approx(decibel(mean), rel=1e-4)
    expected = {"-1 cells": decibel(left.mean()), "+2 cells": decibel(right.mean())}
    assert found.details(rows)["eq"] == pytest.approx(expected, rel=1e-4)
    low, high = found.interval(rows)["eq"]
    assert low == pytest.approx(high, rel=1e-4)  # the same in every image


def test_quarter_turns_move_cells_onto_cells():
    found = metric("rotate", cells=None, strengths=[90.0, -90.0, 180.0])
    rows = found(sample(Model()))
    assert (rows["values"] == 3 * 64 * 64).all() and found.compute(rows)["eq"] > 90
    image = torch.rand(1, 3, 64, 64)
    turned, _ = found.edit.on_image(image, 90.0)
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), atol=1e-4, rtol=0)
    tilted = metric("rotate", cells=None, strengths=[45.0])(sample(Model()))
    assert 0.6 < float(tilted["values"][0, 0]) / (3 * 64 * 64) < 0.85  # corners came from outside


def test_a_method_without_f_has_no_number():
    found = metric()
    given_ = sample(Model())
    given_.found = Inversion(given_.found.wp)
    rows = found(given_)
    assert rows["error"].shape == (3, 2)
    assert math.isnan(found.compute(rows)["eq"]) and math.isnan(found.interval(rows)["eq"][0])
    assert math.isnan(found.details(rows)["eq"]["-1 cells"])


def test_what_cannot_be_is_refused():
    for edit, settings, words in (
        ("shift", {"strengths": [1.0]}, "with cells=.* and strengths=.*; expected one of them"),
        ("rotate", {}, "metric eq with edit=rotate; expected shift"),
        ("smile", {"cells": None, "strengths": [1.0]}, "edit=smile; expected shift, rotate or sca"),
        ("gone", {}, "edit=gone, which is not among the edits"),
    ):
        with pytest.raises(ConfigError, match=words):
            metric(edit, **settings)
