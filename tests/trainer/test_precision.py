"""bfloat16: every method on one rank, and on two with synchronised normalisation."""

import csv
import math

import pytest
import torch
from torch import nn

from ganinv.method.base import Method
from ganinv.run.checkpoint import read_checkpoint
from tests import runs
from tests.processes import launch_ready
from tests.runs import METHODS, methods, overrides, plain_overrides


def arguments(given, sync):
    words = ["trainer.precision=bf16-mixed", f"trainer.sync_batchnorm={str(sync).lower()}"]
    return [*given, *words, "trainer.max_kimg=0.008"]


def sound(folder):
    """Two steps, none skipped, a finite loss."""
    checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert checkpoint["images_seen"] == 8 and checkpoint["nonfinite"] == 0
    with (folder / "metrics.csv").open() as file:
        totals = [v for row in csv.DictReader(file) for k, v in row.items() if k.endswith("total")]
    found = [float(value) for value in totals if value]
    assert found and all(math.isfinite(value) for value in found)


@pytest.mark.parametrize("method", METHODS)
def test_on_one_rank(method, assets, tmp_path):
    runs.run([*arguments(overrides(method, *assets), False), f"run_dir={tmp_path / 'run'}"])
    sound(tmp_path / "run")


@pytest.mark.ddp
@pytest.mark.parametrize("method", methods("e4e", "idinvert", "gan"))
def test_on_two_ranks(method, assets, tmp_path):
    words = [*arguments(plain_overrides(method, *assets), True), "dataset.batch_size=2"]
    launch_ready(words, tmp_path / "run", ranks=2)
    sound(tmp_path / "run")


def test_validation_is_float32(monkeypatch):
    """The best checkpoint is chosen by it."""
    seen = []
    method = Method(seed=0, micro_batches=1, clip_norm=None, max_nonfinite=1)
    layer = nn.Linear(2, 2)
    monkeypatch.setattr(method, "validate", lambda *_: seen.append(layer(torch.ones(1, 2)).dtype))
    with torch.autocast("cpu", torch.bfloat16):
        method.validation_step({}, 0)
    assert seen == [torch.float32]
