"""Rates over a run: a method's own schedule, and the decay at the end of any run."""

from __future__ import annotations

import csv

import pytest

from tests.runs import plain_overrides, run


@pytest.mark.parametrize(
    ("method", "own"),
    [("psp", lambda seen: 1.0), ("idinvert", lambda seen: 0.8 ** (seen / 8))],
)
def test_rates_fall_to_nothing_over_the_last_share_of_a_run(method, own, tmp_path, assets):
    given = plain_overrides(method, *assets)
    given += ["trainer.rate_decay=0.5", "trainer.val_every_kimg=1", f"run_dir={tmp_path / 'run'}"]
    run(given + (["method.decay_every=8"] if method == "idinvert" else []))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lr/E"]]
    end = [1, 1, 1, 1, 2 / 3, 1 / 3]  # at 0, 4 ... 20 of 24 images
    assert [float(row["lr/E"]) / 1e-4 for row in rows] == pytest.approx(
        [own(4 * i) * end[i] for i in range(6)]
    )
