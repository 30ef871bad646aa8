"""The first seven steps of every method repeat the recorded ones, `tests/method/curves.json`."""

import json

import pytest

from tests.method.curves import RECORDED, curves_of
from tests.runs import METHODS, methods

STEPS = 7  # of the twenty: Ranger's slow weights, both players, every stage and penalty
TOLERANCE = 1e-6  # relative; rounding in float64 stays below 1e-9 over twenty steps


@pytest.mark.parametrize("method", methods(*(set(METHODS) - {"restyle_psp"})))
def test_the_first_steps_are_those_recorded(method, assets):
    recorded, found = json.loads(RECORDED.read_text())[method], curves_of(method, assets[0], STEPS)
    assert set(found) == set(recorded)
    for name, values in recorded.items():
        assert len(found[name]) == STEPS
        for step, (was, now) in enumerate(zip(values[:STEPS], found[name], strict=True)):
            same = was == now if was is None else now == pytest.approx(was, rel=TOLERANCE, abs=1e-9)
            assert same, f"{name} of step {step}: {now}, recorded {was}"
