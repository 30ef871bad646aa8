"""What a step computes, counted once a run, and its share of what the device can."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from ganinv.trainer import callbacks
from ganinv.trainer.flops import Flops, peak_of
from tests.runs import plain_overrides, run


def test_products_are_counted_forward_and_backward_penalties_too():
    layer, x = nn.Linear(8, 4), torch.ones(2, 8, requires_grad=True)
    with Flops() as counted:
        layer(x).sum().backward()
    assert counted.total == 3 * 2 * (2 * 8 * 4)  # y, and the gradients of x and of the weight
    with Flops() as counted:
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert counted.total == 6 * 2 * (2 * 8 * 4)  # y and the slope, and two for each of them


def test_a_run_tells_flops_of_each_device_and_their_share_of_the_peak(
    assets, tmp_path, monkeypatch
):
    monkeypatch.setattr(callbacks, "peak_of", lambda device, precision: 1e10)
    run([*plain_overrides("psp", *assets), "trainer.val_every_kimg=1", f"run_dir={tmp_path}/run"])
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lr/E"]]
    assert rows[0]["speed/tflops"] == ""  # the second step is counted
    counted = [float(r["speed/tflops"]) / float(r["speed/images_per_sec"]) for r in rows[1:]]
    assert counted == pytest.approx([counted[0]] * 5) and counted[0] > 1e-6
    assert [float(row["speed/mfu"]) for row in rows[1:]] == pytest.approx(
        [float(row["speed/tflops"]) * 1e12 / 1e10 for row in rows[1:]]
    )


def test_no_peak_is_known_of_a_cpu():
    assert peak_of(torch.device("cpu"), "32-true") is None
