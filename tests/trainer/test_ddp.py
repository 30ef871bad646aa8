"""Real processes: two of batch b equal one of batch 2b, and a run over two resumes bit for bit.

Started by script, as a user would: rank 0 starts the other rank. Batch normalisation is
synchronised; the GAN's minibatch deviation, which no number of ranks could reproduce, is over
groups of one.
"""

import os
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from ganinv.trainer.build import build_method
from ganinv.trainer.checkpoint import read_checkpoint
from tests.runs import ROOT, composed, differences, overrides

SHARE = 0.005  # of what training moved; Adam and Ranger make much of rounding in small gradients
METHODS = ["psp", "e4e", "gan", "idinvert", "restyle_e4e", "bdinvert"]


def launch(arguments, folder):
    """python train.py ... in a process of its own; returns its last checkpoint and its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GANINV_RUN")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "train.py", *arguments, f"run_dir={folder}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return read_checkpoint(folder / "checkpoints" / "last.ckpt"), done.stdout


def arguments(method, assets, processes, batch_size, *extra):
    common = [
        *overrides(method, *assets),
        "trainer.sync_batchnorm=true",
        f"trainer.devices={processes}",
        f"dataset.batch_size={batch_size}",
        "trainer.max_kimg=0.02",
        *extra,
    ]
    return common + (["discriminator.mbstd_group_size=1"] if method == "gan" else [])


@pytest.mark.ddp
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one_with_twice_the_batch(method, assets, tmp_path):
    """After five steps, with gradient penalties, pools and opening stages on the way."""
    one, _ = launch(arguments(method, assets, 1, 4), tmp_path / "one")
    two, out = launch(arguments(method, assets, 2, 2), tmp_path / "two")
    assert one["images_seen"] == two["images_seen"] == 20
    assert out.count("Done: ") == 1  # rank 0 alone speaks
    cfg = composed(arguments(method, assets, 1, 4))
    pl.seed_everything(cfg.seed, verbose=False)
    start = build_method(cfg, instantiate(cfg.generator)).state_dict()
    assert set(one["state_dict"]) == set(two["state_dict"])
    for player in {key.split(".", 1)[0] for key in one["state_dict"]}:
        moved, apart = norms(player, start, one["state_dict"], two["state_dict"])
        assert moved > 0 and apart < SHARE * moved, f"{player}: {apart} of {moved}"


def norms(player, start, one, two):
    """How far training moved a player, and how far apart the two runs put it."""
    keys = [k for k, v in one.items() if k.startswith(player + ".") and torch.is_tensor(v)]
    keys = [k for k in keys if one[k].is_floating_point()]
    moved = torch.stack([(one[k] - start[k]).norm() for k in keys]).norm()
    return moved, torch.stack([(one[k] - two[k]).norm() for k in keys]).norm()


@pytest.mark.ddp
def test_a_run_over_two_processes_resumes_bit_for_bit(assets, tmp_path):
    """e4e: pools, two players, batch statistics of each rank's own."""
    common = arguments("e4e", assets, 2, 2, "trainer.sync_batchnorm=false")
    whole, _ = launch(common, tmp_path / "whole")
    launch([*common, "trainer.max_kimg=0.012"], tmp_path / "half")
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    resumed, _ = launch([*common, f"resume={last}"], tmp_path / "half")
    assert not differences(whole["state_dict"], resumed["state_dict"])
    assert not differences(whole["optimizer_states"], resumed["optimizer_states"])
