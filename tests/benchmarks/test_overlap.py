"""What the benchmark of overlapping makes of its times; namespaces and links need root."""

import os
import sys

import pytest

from tests.runs import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import overlap  # noqa: E402


@pytest.mark.parametrize(
    ("transfer", "taken", "longer", "bound"),
    [(0.2, 1.1, 1.1, 1.0), (1.0, 1.8, 1.8, 1.7), (7.0, 7.7, 1.1, 1.1)],
)
def test_the_bound_is_what_comes_before_and_after_the_gradients(transfer, taken, longer, bound):
    """They come from 0.6 to 0.9 of a step of one second."""
    row = {"compute": 1.0, "transfer": transfer, "overlap": taken}
    found = overlap.with_ratios(row | {"gradients_from": 0.6, "gradients_until": 0.9})
    assert found["overlap_by_longer"] == pytest.approx(longer)
    assert found["bound_by_longer"] == pytest.approx(bound)


def test_without_root_it_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["overlap.py"])
    with pytest.raises(SystemExit, match="run it as root, on Linux, with iproute2"):
        overlap.main()
