"""What is kept of an optimising method's loss, image by image."""

import math
from types import SimpleNamespace

import pytest
import torch

from ganinv.evaluation.curve import POINTS, Curve, curve_of, loss_rows, shown_steps, svg


def trace(*images):
    return SimpleNamespace(shown="total", values={"total": torch.tensor(images).t()})


def test_an_image_that_has_ended_counts_with_what_it_had_then():
    nan = math.nan
    rows = loss_rows(trace([3.0, 2.0, 1.0], [4.0, nan, nan], [5.0, math.inf, nan], [nan, nan, nan]))
    assert rows[:3].tolist() == [[3, 2, 1], [4, 4, 4], [5, 5, 5]] and rows[3].isnan().all()
    curve = curve_of(rows, 3)
    assert curve.steps == [0, 1, 2] and curve.middle == [4, 4, 4]
    assert curve.low == pytest.approx([3.2, 2.4, 1.6])
    assert curve.high == pytest.approx([4.8, 4.8, 4.8])


@pytest.mark.parametrize("count", [1, 2, POINTS, POINTS + 1, 5000])
def test_few_steps_are_kept_and_the_first_and_last_among_them(count):
    steps = shown_steps(count)
    assert steps[0] == 0 and steps[-1] == count - 1 and steps == sorted(set(steps))
    assert len(steps) == min(count, POINTS)
    losses = torch.arange(count, dtype=torch.float64)
    assert loss_rows(trace(losses.tolist()))[0].tolist() == losses[steps].tolist()


def test_a_curve_without_a_finite_loss_is_a_sentence():
    nothing = [math.nan]
    assert "no loss was a finite number" in svg(Curve([0], nothing, nothing, nothing), "t")
    assert "<svg" in svg(Curve([0], [0.0], [0.0], [0.0]), "one step of loss 0")
