"""Whole runs of every method on one process: what moves, resume, interruption, refusals."""

import csv
import errno
import os
import signal
import subprocess
import time
import zipfile
from contextlib import contextmanager

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from PIL import Image
from torch.nn.functional import batch_norm

from ganinv.cli.main import main
from ganinv.config.build import build_method
from ganinv.core.errors import (
    ConfigError,
    NotFinite,
    RunError,
    WeightsError,
    WeightsMissing,
)
from ganinv.evaluation.open import load_trained
from ganinv.generator.importer.bundle import save_bundle
from ganinv.method.psp import PSp
from ganinv.run import checkpoint as checkpoint_io
from ganinv.run.checkpoint import newest_sound, read_checkpoint
from ganinv.run.folder import ENVIRONMENT
from ganinv.run.status import read_state
from tests.generator.test_stylegan3 import tiny as stylegan3
from tests.processes import can_mount, finished, start
from tests.runs import (
    METHODS,
    composed,
    differences,
    methods,
    overrides,
    plain_overrides,
    run,
    tiny_generator_file,
)


def trained(method, assets, folder, *extra, words=plain_overrides):
    os.environ.pop(ENVIRONMENT, None)
    run([*words(method, *assets), f"run_dir={folder}", *extra])
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_the_uninterrupted_one(method, assets, tmp_path):
    """Stopped after 12 of 24 images, off every validation and shard boundary, then resumed; all
    rates fall from there on."""
    decay = "trainer.rate_decay=0.5"
    whole = trained(method, assets, tmp_path / "whole", decay)
    half = trained(method, assets, tmp_path / "half", "trainer.max_kimg=0.012")
    assert read_checkpoint(half)["images_seen"] == 12
    resumed = trained(method, assets, tmp_path / "half", f"resume={half}", decay)
    first, second = read_checkpoint(whole), read_checkpoint(resumed)
    assert first["images_seen"] == second["images_seen"] == 24
    for entry in ("state_dict", "optimizer_states"):
        assert not differences(first[entry], second[entry])


@pytest.mark.parametrize("method", methods("e4e", "idinvert", "gan"))
def test_accumulation_equals_the_larger_batch(method, assets, tmp_path):
    """Two chunks of two against one batch of four, without batch statistics.

    Those are a chunk's own, so the encoder's normalisation is frozen here and the GAN's minibatch
    deviation is over groups of one.
    """
    extra = ["discriminator.mbstd_group_size=1"] if method == "gan" else []
    ends = []
    for chunks in (1, 2):
        with frozen_batch_norm():
            last = trained(
                method,
                assets,
                tmp_path / str(chunks),
                f"trainer.micro_batches={chunks}",
                "trainer.max_kimg=0.02",
                *extra,
            )
        ends.append(read_checkpoint(last)["state_dict"])
    for key, value in ends[0].items():
        if torch.is_tensor(value) and value.is_floating_point():
            torch.testing.assert_close(ends[1][key], value, rtol=1e-4, atol=2e-5, msg=key)


@contextmanager
def frozen_batch_norm():
    """Batch normalisation by its running statistics, also in training."""

    def forward(self, x):
        statistics = (self.running_mean, self.running_var)
        return batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)

    before = torch.nn.BatchNorm2d.forward
    torch.nn.BatchNorm2d.forward = forward
    try:
        yield
    finally:
        torch.nn.BatchNorm2d.forward = before


@pytest.mark.parametrize("method", METHODS)
def test_training_moves_the_players_and_nothing_else(method, assets, tmp_path):
    last = trained(method, assets, tmp_path / "run", "trainer.max_kimg=0.016")
    cfg = composed(plain_overrides(method, *assets))
    pl.seed_everything(cfg.seed, verbose=False)
    start = build_method(cfg, instantiate(cfg.generator)).state_dict()
    state = read_checkpoint(last)["state_dict"]
    players = {"gan": {"G", "D", "G_ema"}, "e4e": {"E", "D", "pools"}}.get(method, {"E"})
    players = {"E", "D", "pools"} if method == "restyle_e4e" else players
    players = {"E", "D"} if method == "idinvert" else players
    assert {key.split(".", 1)[0] for key in state} == players
    tensors = {k: v for k, v in state.items() if torch.is_tensor(v)}
    assert all(value.isfinite().all() for value in tensors.values())
    moved = {key.split(".", 1)[0] for key in tensors if not torch.equal(tensors[key], start[key])}
    assert moved == players
    if method != "gan":
        reopened = load_trained(last).method.state_dict()
        frozen = {k: v for k, v in start.items() if k.startswith("G.")}
        assert frozen and not differences(frozen, {k: reopened[k] for k in frozen})


def test_a_signal_leaves_a_resumable_checkpoint(assets, tmp_path, monkeypatch, capsys):
    """SIGTERM in the second step: that step ends, a checkpoint is written, resume=auto goes on."""
    step = PSp.step
    seen = []

    def interrupted(self, x, batch):
        step(self, x, batch)
        seen.append(self.images_seen)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    runs = [f"runs={tmp_path}", *plain_overrides("psp", *assets)]
    monkeypatch.setattr(PSp, "step", interrupted)
    run(runs)
    (folder,) = tmp_path.iterdir()
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["images_seen"] == 8
    assert "Interrupted at 0.01 kimg" in capsys.readouterr().out
    os.environ.pop(ENVIRONMENT, None)
    run([*runs, "resume=auto"])
    assert list(tmp_path.iterdir()) == [folder] and (folder / "finished").is_file()
    out = capsys.readouterr().out
    assert f"continuing {folder}" in out and f"evaluate.py checkpoint={folder}" in out
    whole = trained("psp", assets, tmp_path / "whole")
    last = folder / "checkpoints" / "last.ckpt"
    first, second = read_checkpoint(whole), read_checkpoint(last)
    assert not differences(first["state_dict"], second["state_dict"])


def test_what_a_run_leaves_behind(assets, tmp_path):
    folder = trained("psp", assets, tmp_path / "run", words=overrides).parents[1]
    assert {"config.yaml", "metrics.csv", "checkpoints", "grids", "finished"} <= set(
        os.listdir(folder)
    )
    best = sorted(path.name for path in (folder / "checkpoints").glob("best*.ckpt"))
    assert best[0].startswith("best-") and best[-1] == "best.ckpt" and len(best) <= 3
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    trained_rows = [row for row in rows if row["train/total"]]
    assert [int(row["step"]) for row in trained_rows] == [4, 8, 12, 16, 20, 24]
    terms = 4 * float(trained_rows[0]["train/l2"]) + 0.8 * float(
        trained_rows[0]["train/perceptual"]
    )
    assert float(trained_rows[0]["train/total"]) == pytest.approx(terms, rel=1e-4)
    assert any(row["val/total"] for row in rows)


def test_steps_that_are_not_finite_are_skipped_counted_and_stop_the_run(
    assets, tmp_path, monkeypatch
):
    loss, calls = PSp.loss_E, []

    def broken(self, *arguments):
        calls.append(1)
        factor = float("nan") if len(calls) in (2, 4, 5, 6) else 1.0
        return {name: (factor * w, v) for name, (w, v) in loss(self, *arguments).items()}

    monkeypatch.setattr(PSp, "loss_E", broken)
    with pytest.raises(NotFinite, match="gradient of E was not finite 3 steps in a row"):
        trained("psp", assets, tmp_path / "run", "method.max_nonfinite=3")
    assert len(calls) == 6


def test_a_checkpoint_that_is_not_finite_is_not_written(assets, tmp_path, monkeypatch):
    """A weight becomes NaN after the checkpoint of 8 images: the one of 16 is refused."""
    step = PSp.step

    def broken(self, x, batch):
        step(self, x, batch)
        if self.images_seen == 12:
            self.E.latlayer1.bias.data[0] = float("inf")

    monkeypatch.setattr(PSp, "step", broken)
    said = r"E.latlayer1.bias is NaN or Inf at 0.02 kimg; expected finite .*nothing was written ov"
    with pytest.raises(NotFinite, match=said):
        trained("psp", assets, tmp_path / "run", "trainer.val_every_kimg=1")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last)["images_seen"] == 8


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true", "64-true"])
def test_a_precision_that_is_not_computed_rightly_is_refused(precision, assets, tmp_path):
    words = f"trainer.precision={precision}"
    for given in ([*overrides("psp", *assets), f"runs={tmp_path}"], ["trainer=dry"]):
        with pytest.raises(ConfigError, match=f"{words}; expected one of 32-true, bf16-mixed"):
            run([*given, words])


def test_refusals(assets, tmp_path):
    base = overrides("psp", *assets)
    last = trained("psp", assets, tmp_path / "run", "trainer.max_kimg=0.004")

    def refused(error, words, *extra):
        os.environ.pop(ENVIRONMENT, None)
        with pytest.raises(error, match=words):
            run([*base, f"runs={tmp_path}", *extra])

    refused(
        ConfigError,
        "already holds checkpoints.*nothing was overwritten",
        f"run_dir={tmp_path / 'run'}",
    )
    refused(WeightsMissing, "resume=/nowhere.ckpt", "resume=/nowhere.ckpt")
    if not torch.cuda.is_available():
        refused(ConfigError, "accelerator=gpu on a machine without.*devices=2", "trainer=gpu")
    refused(ConfigError, "micro_batches=3 with dataset.batch_size=4", "trainer.micro_batches=3")
    refused(
        ConfigError,
        "a generator of 64 px with images of 32 x 32 px.*generator of 32 px",
        "dataset.image_size=[32,32]",
        "dataset.generator_resolutions=[32]",
    )
    with pytest.raises(ConfigError, match="no value for dataset.root"):
        run(["dataset=shards", "logger=csv", f"runs={tmp_path}"])
    other = tmp_path / "other"
    other.mkdir()
    file = tiny_generator_file(other)
    file.write_bytes(file.read_bytes().replace(b"random weights", b"RANDOM weights"))
    refused(
        WeightsError,
        "was trained on a generator with sha256.*expected the same file",
        f"resume={last}",
        f"generator.weights={file}",
    )
    refused(WeightsError, "does not fit E4E: missing .*'D", "method=e4e", f"resume={last}")
    before = last.read_bytes()
    refused(
        WeightsError,
        "optimizer of E is no Adam",
        f"resume={last}",
        "optimizer=adam",
    )
    assert last.read_bytes() == before


def test_a_foreign_or_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(WeightsMissing, match="no checkpoint at .*best.ckpt"):
        load_trained(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(WeightsError, match="is not a ganinv checkpoint"):
        load_trained(tmp_path / "foreign.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "foreign.ckpt").read_bytes()[:200])
    with pytest.raises(WeightsError, match="cannot be read as plain tensors"):
        load_trained(tmp_path / "cut.ckpt")


def test_a_flipped_byte_is_noticed_by_whoever_reads_the_checkpoint(assets, tmp_path, capsys):
    """In the middle of a tensor, where torch's reader compares no checksum."""
    last = trained("psp", assets, tmp_path / "run", "trainer.max_kimg=0.004")
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(content)
    torch.load(damaged, weights_only=True)
    words = "damaged.ckpt (is damaged: the checksum of .* does not fit|.* .a checksum does not fit)"
    with pytest.raises(WeightsError, match=words):
        load_trained(damaged)
    os.environ.pop(ENVIRONMENT, None)
    with pytest.raises(WeightsError, match=words):
        run([*overrides("psp", *assets), f"runs={tmp_path / 'runs'}", f"resume={damaged}"])
    out = tmp_path / "out"
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "a.png")
    for command in (
        ["invert", str(damaged), str(tmp_path / "photos"), "--out", str(out)],
        ["export", str(damaged), "--to", "safetensors", "--out", str(out)],
    ):
        assert main(command) == 1
        assert "a checksum does not fit" in capsys.readouterr().err
        assert not out.exists()


def test_a_checkpoint_that_unpacks_to_more_is_no_sound_one(tmp_path):
    """A file of kilobytes is not unpacked to gigabytes to compare its checksums."""
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("last/data.pkl", b"\0" * (64 << 20))
    found, damaged = newest_sound(tmp_path)
    assert found is None
    assert damaged == [(tmp_path / "last.ckpt", "a compressed zip file, which torch.save never "
                        "writes")]  # fmt: skip


def test_a_gan_is_validated_by_its_samples(assets, tmp_path):
    """The metric of yaml, a picture, the best checkpoint by it, and nothing of it inside."""
    arguments = [a for a in overrides("gan", *assets) if a != "method.fid=null"]
    folder = tmp_path / "run"
    run([*arguments, f"run_dir={folder}", "trainer.max_kimg=0.016"])
    with open(folder / "metrics.csv") as file:
        (fid,) = [float(row["val/fid_lite0"]) for row in csv.DictReader(file) if row["kimg"] == ""]
    assert fid > 100  # an untrained generator is far from any face
    assert (folder / "grids" / "000000016.png").is_file()
    best = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    assert not [key for key in best["state_dict"] if key.startswith("fid")]


def test_stylegan3_is_a_generator_like_any_other(assets, tmp_path):
    """pSp over it, from a file: a step of training, validation, the checkpoint opened again."""
    generator = stylegan3(resolution=64)
    file = tmp_path / "stylegan3.safetensors"
    save_bundle(file, generator, {"recipe": "random weights for tests"})
    extra = ["trainer.max_kimg=0.008", "generator.kind=stylegan3_t"]
    with pytest.raises(WeightsError, match="of kind stylegan3_t; expected one of kind stylegan2"):
        trained("psp", (file, assets[1]), tmp_path / "run", *extra[:1])
    last = trained("psp", (file, assets[1]), tmp_path / "run", *extra)
    again = load_trained(last)
    assert again.method.generator.num_ws == generator.num_ws
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    assert again.method.reconstruct(x).shape == x.shape


def test_asynchronous_checkpoints_are_the_same_ones(assets, tmp_path, monkeypatch):
    """Each copy is taken at its step, however late it is written; a write that fails ends the
    run."""
    write = checkpoint_io.write_checkpoint
    slow = tmp_path / "slow"

    def late(path, content):
        time.sleep(0.3)
        write(path, content)

    monkeypatch.setattr(checkpoint_io, "write_checkpoint", late)
    extra = ["trainer.async_checkpoint=true"]
    last = trained("psp", assets, slow, *extra)
    monkeypatch.setattr(checkpoint_io, "write_checkpoint", write)
    plain = trained("psp", assets, tmp_path / "plain")
    for name in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        first, second = (read_checkpoint(run.parent / name) for run in (last, plain))
        assert first["images_seen"] == second["images_seen"]
        assert not differences(first["state_dict"], second["state_dict"])

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_io, "write_atomic", full)
    with pytest.raises(RunError, match="could not be written: No space left on device"):
        trained("psp", assets, tmp_path / "full", *extra)


@pytest.mark.skipif(not can_mount(), reason="no permission to mount a small disk")
def test_a_disk_that_is_really_full(assets, tmp_path):
    """Room for one checkpoint: the second does not fit, the first stays whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "none", disk], check=True)
    try:
        arguments = ["trainer.val_every_kimg=1", "trainer.save_every_kimg=0.004"]
        (disk / "ballast").write_bytes(bytes(35 << 20))
        said = r"last.ckpt \(2\d\.\d MiB\) could not be written: No space left.*; \d+\.\d MiB free"
        with pytest.raises(RunError, match=said):
            trained("psp", assets, disk / "run", *arguments)
        checkpoints = disk / "run" / "checkpoints"
        assert [p.name for p in sorted(checkpoints.iterdir())] == ["last.ckpt", "previous.ckpt"]
        assert read_checkpoint(checkpoints / "last.ckpt")["images_seen"] == 4
        assert read_state(disk / "run")["state"] == "failed"
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("drawn", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_ctrl_c_outside_of_the_steps_is_a_sentence(tmp_path, drawn):
    """Once the drawing is announced, its helpers just starting, or while they draw: exit code 130,
    no traceback, nothing that looks like a run."""
    arguments = ["logger=csv", f"runs={tmp_path / 'runs'}", f"dataset.cache={tmp_path / 'cache'}"]
    process = start([*arguments, "dataset.num_train=20000", "trainer.threads=1"], new_group=True)
    said = ""
    while "Drawing the built-in domain" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    until = time.monotonic() + 120
    while drawn and not list(tmp_path.glob("cache/*/.train.partial-*/*.tar.*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    said += finished(process, 130)
    assert "Interrupted. The same command with resume=auto" in said and "Traceback" not in said


def test_a_folder_behind_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match="cannot be written: .*file.*: Not a dir.*; expected a place"
    ):
        arguments = overrides("psp", tmp_path / "no-such-generator", tmp_path)
        run([*arguments, f"run_dir={tmp_path / 'file' / 'run'}"])


def test_a_larger_batch_changes_every_player_s_optimizer(assets, tmp_path, caplog):
    """Batches of 4 of a recipe for 1: the rates double, in the log and in the checkpoint."""
    extra = ["trainer.reference_batch_size=1", "optimizer.lr=1e-4", "trainer.max_kimg=0.008"]
    checkpoint = read_checkpoint(trained("e4e", assets, tmp_path / "run", *extra))
    rates = [state["param_groups"][0]["lr"] for state in checkpoint["optimizer_states"]]
    assert rates == pytest.approx([2e-4, 4e-5])
    betas = checkpoint["optimizer_states"][0]["param_groups"][0]["betas"]
    assert betas == pytest.approx((0.8, 0.996)) and "tried up to" not in caplog.text
    rows = list(csv.DictReader(open(tmp_path / "run" / "metrics.csv")))
    assert float(next(r["lr/E"] for r in rows if r["lr/E"])) == pytest.approx(2e-4)
    trained("psp", assets, tmp_path / "far", *extra[:2], "trainer.max_kimg=0.004",
            "dataset.batch_size=20")  # fmt: skip
    assert "is 20 times trainer.reference_batch_size" in caplog.text
    with pytest.raises(
        ConfigError, match="trainer.reference_batch_size=0; expected a whole number of at least 1"
    ):
        trained("psp", assets, tmp_path / "none", "trainer.reference_batch_size=0")
