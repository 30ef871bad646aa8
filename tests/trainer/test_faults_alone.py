"""Faults of losses, files and disks in processes of their own: what the run says, what it leaves.

`tests/trainer/test_faults.py` has those of ranks.
"""

import csv
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from ganinv.run.checkpoint import read_checkpoint
from ganinv.run.status import read_state
from tests.dataset.server import serving
from tests.processes import can_mount, finished, launch, launch_ready, start
from tests.runs import differences, methods, plain_overrides

ENTRIES = ("state_dict", "optimizer_states", "images_seen")


@pytest.fixture(scope="module")
def whole(assets, tmp_path_factory):
    """The folder of an undisturbed run: method, ranks -> run, once each."""

    @cache
    def run(method: str, ranks: int = 1) -> Path:
        folder: Path = tmp_path_factory.mktemp("whole") / "run"
        launch_ready(arguments_of(method, assets, ranks), folder, ranks=ranks)
        return folder

    return run


def arguments_of(method: str, assets, ranks: int = 1) -> list[str]:
    return [*plain_overrides(method, *assets), f"dataset.batch_size={4 // ranks}"]


def same(*folders: Path) -> bool:
    first, second = (read_checkpoint(f / "checkpoints" / "last.ckpt") for f in folders)
    return not [d for e in ENTRIES for d in differences(first[e], second[e])]


def seen(folder: Path, name: str = "last.ckpt") -> int:
    return read_checkpoint(folder / "checkpoints" / name)["images_seen"]


@pytest.mark.parametrize("method", methods("gan"))
def test_a_killed_run_of_any_method_repeats_bit_for_bit(method, assets, whole, tmp_path):
    """kill -9 at 20 of 24 images, after a validation; the checkpoint is of 16."""
    arguments = arguments_of(method, assets)
    launch_ready(arguments, tmp_path / "killed", -signal.SIGKILL, fault="kill:0:20")
    assert seen(tmp_path / "killed") == 16
    launch_ready([*arguments, "resume=auto"], tmp_path / "killed")
    assert seen(tmp_path / "killed") == 24 and same(whole(method), tmp_path / "killed")


@pytest.mark.ddp
@pytest.mark.parametrize("method", methods("e4e"))
def test_a_killed_run_of_any_method_on_two_ranks_repeats_bit_for_bit(
    method, assets, whole, tmp_path
):
    arguments = arguments_of(method, assets, 2)
    out = launch_ready(arguments, tmp_path / "killed", None, fault="kill:1:20", ranks=2)
    assert re.search(r"rank 1 \(process \d+ on .*\) was killed", out), out
    launch_ready([*arguments, "resume=auto"], tmp_path / "killed", ranks=2)
    assert seen(tmp_path / "killed") == 24 and same(whole(method, 2), tmp_path / "killed")


def test_a_run_killed_while_it_writes_goes_on_from_the_checkpoint_before(assets, whole, tmp_path):
    """The asynchronous writer dies between the last byte and the rename, at 16 images."""
    arguments = [*plain_overrides("psp", *assets), "trainer.async_checkpoint=true"]
    folder = tmp_path / "run"
    launch_ready(arguments, folder, -signal.SIGKILL, fault="kill-writer:0:12")
    assert seen(folder) == 8
    assert list((folder / "checkpoints").glob(".last.ckpt.*"))  # what it was writing
    launch_ready([*arguments, "resume=auto"], folder)
    assert same(folder, whole("psp"))
    assert not list((folder / "checkpoints").glob(".*"))


def test_a_checkpoint_with_a_changed_byte_is_told_from_a_sound_one(assets, whole, tmp_path):
    """In the middle of its weights: the one before is taken, and the run ends the same."""
    arguments, folder = plain_overrides("psp", *assets), tmp_path / "run"
    launch_ready([*arguments, "trainer.max_kimg=0.016"], folder)
    last = folder / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    told = launch_ready([*arguments, "resume=auto"], folder)
    assert re.search(r"last.ckpt is damaged \(the checksum of \S+ does not fit\): using prev", told)
    assert same(folder, whole("psp"))


def test_a_full_disk_ends_a_run_that_writes_asynchronously(assets, tmp_path):
    arguments = [*plain_overrides("psp", *assets), "trainer.async_checkpoint=true"]
    arguments += ["trainer.val_every_kimg=1"]
    out = launch_ready(arguments, tmp_path / "run", 1, fault="full:0:12")
    assert re.search(r"last.ckpt \(\d+\.\d MiB\) could not be written: No space left", out), out
    assert seen(tmp_path / "run") == 8
    assert read_state(tmp_path / "run")["state"] == "running"  # the same disk: nothing to write on


@pytest.mark.ddp
def test_a_signal_to_a_run_by_script_ends_every_rank(assets, whole, tmp_path):
    """SIGTERM to the process that a user started, in its step at 8 images; then resume=auto."""
    arguments = [*plain_overrides("e4e", *assets), "trainer=ddp", "trainer.accelerator=cpu"]
    arguments += ["trainer.devices=2", "trainer.precision=32-true", "dataset.batch_size=2"]
    arguments += [a for a in plain_overrides("e4e", *assets) if a.startswith("trainer.")]
    folder = tmp_path / "run"
    out = launch(arguments, folder, 128 + signal.SIGTERM, fault="signal SIGTERM:0:8")
    assert "Interrupted at 0.01 kimg" in out and seen(folder) == 12
    assert read_state(folder)["state"] == "interrupted"
    launch_ready([*arguments, "resume=auto"], folder, ranks=2)
    assert same(folder, whole("e4e", 2))


@pytest.mark.parametrize(
    "name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.nightly), "SIGUSR1"]
)
def test_every_signal_lets_the_step_end_and_the_run_go_on(assets, whole, tmp_path, name):
    """Ctrl-C, a scheduler's end, SLURM's warning: the exit code says which."""
    arguments, folder = plain_overrides("psp", *assets), tmp_path / "run"
    code = 128 + signal.Signals[name]
    out = launch_ready(arguments, folder, code, fault=f"signal {name}:0:8")
    assert f"Continue:  python train.py <same options> resume={folder}" in out
    assert seen(folder) == 12 and read_state(folder)["state"] == "interrupted"
    launch_ready([*arguments, "resume=auto"], folder)
    assert same(folder, whole("psp"))


@pytest.mark.ddp
def test_a_loss_that_is_nan_on_one_rank_skips_the_step_on_both(assets, tmp_path):
    """Rank 1 has one NaN: counted, told, the ranks stay equal, the run ends well."""
    arguments = [*plain_overrides("e4e", *assets), "dataset.batch_size=2"]
    arguments += ["trainer.compare_ranks_every=1"]
    out = launch_ready(arguments, tmp_path / "run", fault="not-finite nan 1:1:8", ranks=2)
    assert "a step before 0.01 kimg was skipped: its gradient was NaN or Inf (1 in all)" in out
    with open(tmp_path / "run" / "metrics.csv") as file:
        counts = [row["train/skipped_steps"] for row in csv.DictReader(file)]
    assert [float(c) for c in counts if c] == [0, 0, 1, 1, 1, 1]
    assert read_state(tmp_path / "run")["skipped_steps"] == 1
    weights = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(v.isfinite().all() for v in weights.values() if torch.is_tensor(v))


@pytest.mark.ddp
def test_losses_that_stay_infinite_stop_the_run_with_the_batch_saved(assets, tmp_path):
    """On rank 1 alone, where no term shows it: both ranks' batches are there, readable without
    running code."""
    arguments = [*plain_overrides("psp", *assets), "dataset.batch_size=2", "method.max_nonfinite=2"]
    folder = tmp_path / "run"
    out = launch_ready(arguments, folder, 1, fault="not-finite inf 99:1:8", ranks=2)
    assert "NotFinite: the gradient of E was not finite 2 steps in a row" in out
    for rank in (0, 1):
        saved = folder / f"nonfinite-000000012-rank{rank}.pt"
        assert str(saved) in out
        content = torch.load(saved, weights_only=True)
        assert content["batch"]["image"].shape == (2, 3, 64, 64) and content["rank"] == rank
        assert content["images_seen"] == 12 and content["values"]["l2"] > 0
    assert read_state(folder)["state"] == "failed" and seen(folder) == 8


@pytest.mark.ddp
def test_of_many_ranks_those_with_bad_losses_save_their_batch(assets, tmp_path):
    """And rank 0; not the third."""
    arguments = [*plain_overrides("psp", *assets), "dataset.batch_size=2", "method.max_nonfinite=2"]
    launch_ready(arguments, tmp_path / "run", None, fault="bad-images:1:6", ranks=3)
    saved = sorted((tmp_path / "run").glob("nonfinite-*.pt"))
    assert [path.name[-8:] for path in saved] == ["rank0.pt", "rank1.pt"]
    values = [torch.load(path, weights_only=True)["values"]["l2"] for path in saved]
    assert values[0].isfinite() and not values[1].isfinite()


@pytest.fixture
def vanishing(assets, tmp_path, monkeypatch) -> Iterator[tuple[list[str], str]]:
    """A run over shards of four images, two of which go bad; (arguments, the shards)."""
    from ganinv.dataset.module import AvatarData
    from tests.runs import run

    monkeypatch.setattr(AvatarData, "PER_SHARD", 4)
    arguments = [*plain_overrides("psp", assets[0], tmp_path), "dataset.window=1", "seed=3"]
    run([*arguments, "trainer.max_kimg=0.004", f"run_dir={tmp_path / 'draws'}"])
    yield arguments, f"{tmp_path}/avatars64-*/train/*.tar"


@pytest.mark.parametrize("fault", [pytest.param("vanish", marks=pytest.mark.nightly), "cut"])
def test_a_shard_that_goes_bad_while_running(vanishing, tmp_path, fault):
    """Its images are replaced, told and counted; over the allowed share the run stops."""
    arguments, shards = vanishing
    copy = tmp_path / "sound"
    (source,) = tmp_path.glob("avatars64-*")
    shutil.copytree(source, copy)
    told = launch_ready(
        [*arguments, "dataset.max_bad_fraction=0.8"],
        tmp_path / "run",
        fault=f"{fault} {shards}:0:4",
    )
    assert re.search(r"skipped an unreadable image in \S+00000[34].tar", told), told
    assert read_state(tmp_path / "run")["state"] == "finished" and seen(tmp_path / "run") == 24
    shutil.rmtree(source)
    copy.rename(source)
    told = launch_ready(arguments, tmp_path / "other", 1, fault=f"{fault} {shards}:0:4")
    assert re.search(r"DataError: .*unreadable images among \d+ of .*00000[34].tar", told), told
    assert read_state(tmp_path / "other")["state"] == "failed"


def test_a_server_that_answers_500_for_a_while_changes_nothing(vanishing, tmp_path, monkeypatch):
    """Bounded retries, each told; the run is that from the folder, bit for bit. A shard that the
    server does not have is another thing."""
    arguments, _ = vanishing
    (root,) = tmp_path.glob("avatars64-*")
    here = [a for a in arguments if not re.match(r"dataset.(cache|num_t|num_v)", a)]
    here += ["dataset=shards", "dataset.image_size=[64,64]", "dataset.generator_resolutions=[64]"]
    here += ["dataset.num_workers=0"]
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache"))
    launch_ready([*here, f"dataset.root={root}"], tmp_path / "whole")
    with serving(root) as server:
        far = [*here, f"dataset.root={server.address}"]
        server.faults += [["000002.tar", 500, 2], ["000004.tar", "short", 1]]
        told = launch_ready(far, tmp_path / "run")
        assert re.search(r"000002.tar.*the server answers 500.*try 3 of 8", told), told
        assert re.search(r"000004.tar.*try 2 of 8", told), told
        assert same(tmp_path / "whole", tmp_path / "run")
        shutil.rmtree(tmp_path / "cache")
        server.faults += [["000003.tar", 404, 10**6]]
        told = launch_ready(far, tmp_path / "gone", 1)
    assert re.search(r"DataError: .*000003.tar.*the server answers 404", told), told


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    """Root's rights do not help there, nor does it look so until one tries. The generator's file
    is not there either: of that nothing is said."""
    arguments = plain_overrides("psp", tmp_path / "none", tmp_path / "none")
    out = launch_ready([*arguments, "run_dir=/proc/nowhere/run"], tmp_path / "said", 1)
    assert "ConfigError: the run's folder /proc/nowhere/run cannot be written" in out
    assert "expected a place that takes files" in out and "Traceback" not in out


@pytest.mark.skipif(not can_mount(), reason="no permission to mount a disk")
def test_a_disk_mounted_read_only_is_refused_before_anything_is_read(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount --bind {disk} {disk} && mount -o remount,bind,ro {disk} && exec "$@"'
    launcher = ("unshare", "-m", "bash", "-c", mount, "bash", sys.executable)
    arguments = [
        *plain_overrides("psp", tmp_path / "none", tmp_path / "none"),
        f"run_dir={disk}/run",
    ]
    out = finished(start(arguments, launcher=launcher), 1)
    assert re.search(rf"ConfigError: the run's folder {disk}/run cannot be written", out), out
    assert "expected a place that takes files" in out and "Traceback" not in out


@pytest.mark.skipif(not can_mount(), reason="no permission to mount a disk")
def test_a_disk_that_becomes_read_only_ends_the_run_in_a_sentence(assets, tmp_path):
    """As a file system does that has found an error of its own."""
    folder = tmp_path / "run"
    arguments = [*plain_overrides("psp", *assets), f"run_dir={folder}"]
    launcher = ("unshare", "-m", sys.executable)
    out = finished(start(arguments, fault=f"read-only {folder}:0:12", launcher=launcher), 1)
    assert re.search(r"RunError: .*Read-only file system", out) and "Traceback" not in out, out
    assert seen(folder) == 8
