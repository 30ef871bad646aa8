"""Twenty steps of every method repeat the recorded ones, `tests/method/curves.json`."""

import json

import pytest

from tests.method.curves import RECORDED, STEPS, curves_of
from tests.runs import METHODS

TOLERANCE = 1e-6  # relative; rounding in float64 stays below 1e-9 over twenty steps


@pytest.mark.parametrize("method", METHODS)
def test_twenty_steps_are_those_recorded(method, assets):
    recorded, found = json.loads(RECORDED.read_text())[method], curves_of(method, assets[0])
    assert set(found) == set(recorded)
    for name, values in recorded.items():
        assert len(values) == STEPS
        for step, (was, now) in enumerate(zip(values, found[name], strict=True)):
            same = was == now if was is None else now == pytest.approx(was, rel=TOLERANCE, abs=1e-9)
            assert same, f"{name} of step {step}: {now}, recorded {was}"
