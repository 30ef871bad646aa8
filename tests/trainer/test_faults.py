"""What goes wrong on a cluster, done to real processes: the run says what it was, and goes on."""

import os
import re
import signal
import time

import pytest

from ganinv.cli.runs import condition
from ganinv.run.checkpoint import read_checkpoint
from ganinv.run.status import read_state
from tests.processes import finished, launch, launch_ready, start, torchrun
from tests.runs import differences, plain_overrides

pytestmark = [pytest.mark.ddp]
TWO = ["trainer.devices=2", "dataset.batch_size=2"]


@pytest.fixture(scope="module")
def common(assets):
    """e4e: two players, pools, opening stages, each rank's own batch statistics."""
    return plain_overrides("e4e", *assets)


@pytest.fixture(scope="module")
def whole(common, tmp_path_factory):
    """The last checkpoint of an undisturbed run on two ranks."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    launch_ready([*common, *TWO], folder, ranks=2)
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


def same(first, second):
    entries = ("state_dict", "optimizer_states", "images_seen")
    return not [d for e in entries for d in differences(first[e], second[e])]


def test_a_killed_rank_is_named_and_the_run_repeats_bit_for_bit_from_a_sound_checkpoint(
    common, whole, tmp_path
):
    """kill -9 of rank 1 at 20 images; then the newest checkpoint is cut in half as well."""
    folder = tmp_path / "run"
    begun = time.monotonic()
    out = launch([*common, *TWO], folder, code=None, fault="kill:1:20")
    assert time.monotonic() - begun < 300  # and not trainer.timeout_minutes, 30
    assert re.search(r"RunError: .*rank 1 \(process \d+ on .*\) was killed.*resume=auto", out), out
    state = read_state(folder)
    assert state["state"] == "failed"
    checkpoints = folder / "checkpoints"
    last = checkpoints / "last.ckpt"
    assert read_checkpoint(last)["images_seen"] == 16
    assert read_checkpoint(checkpoints / "previous.ckpt")["images_seen"] == 8
    os.truncate(last, last.stat().st_size // 2)
    reads = tmp_path / "reads"
    out = launch_ready([*common, *TWO, "resume=auto"], folder, ranks=2, fault=f"reads {reads}:0:-1")
    assert reads.read_text().split("\n")[:-1] == ["0 last.ckpt", "0 previous.ckpt"]  # each once
    assert re.search(r"last.ckpt is damaged \(cut short.*using previous.ckpt instead", out), out
    assert same(whole, read_checkpoint(last))
    assert (folder / "logs" / "rank1.log").read_text().count("--- ") == 2


def test_a_run_whose_every_process_was_killed_goes_on(common, tmp_path):
    """Nobody was left to say anything: `ganinv runs` knows, and resume=auto repeats it."""
    folder = tmp_path / "run"
    launch(common, folder, code=-signal.SIGKILL, fault="kill:0:20")
    assert condition(read_state(folder)) == "dead"
    launch_ready([*common, "resume=auto"], folder)
    launch_ready(common, tmp_path / "whole")
    ends = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("run", "whole")]
    assert same(*map(read_checkpoint, ends)) and condition(read_state(folder)) == "finished"


def test_a_rank_that_hangs_is_named_and_shows_where(common, tmp_path):
    folder = tmp_path / "run"
    extra = ["trainer.timeout_minutes=0.1"]
    out = launch_ready([*common, *TWO, *extra], folder, None, "hang:1:8", ranks=2)
    said = r"the ranks waited 6 s \(trainer.timeout_minutes\) for rank 1 \(process \d+ on .*, 0.01"
    assert re.search(said, out), out
    log = (folder / "logs" / "rank1.log").read_text()
    assert "rank 1 stands here" in log and 'sitecustomize.py", line' in log


def test_a_rank_whose_process_is_stopped_is_named(common, tmp_path):
    extra = ["trainer.timeout_minutes=0.1"]
    out = launch([*common, *TWO, *extra], tmp_path / "run", code=None, fault="stop:1:8")
    assert re.search(r"rank 1 \(process \d+ .*has given no sign for 3 s", out), out
    number = int(re.search(r"rank 1 \(process (\d+)", out)[1])
    assert not _alive(number)


def _alive(number):
    for _ in range(50):
        try:
            with open(f"/proc/{number}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return False
        except FileNotFoundError:
            return False
        time.sleep(0.1)
    return True


def test_ranks_that_drift_apart_stop_the_run_and_name_the_tensor(common, tmp_path):
    extra = ["trainer.compare_ranks_every=2"]
    out = launch_ready([*common, *TWO, *extra], tmp_path / "run", None, "perturb:1:12", ranks=2)
    said = (
        r"the ranks drifted apart at 0.02 kimg: E\.\S+ \(the first of \d+ tensors\) differs "
        "between rank 0 and rank 1; expected equal weights"
    )
    assert re.search(said, out), out


def test_a_full_disk_leaves_the_old_checkpoint(common, tmp_path):
    """Rank 0 cannot write; rank 1 ends as well."""
    folder = tmp_path / "run"
    out = launch_ready([*common, *TWO], folder, None, "full:0:12", ranks=2)
    said = r"RunError: the checkpoint \S+last.ckpt \(\d+\.\d MiB\) could not be written: No space "
    assert re.search(said + r"left on device; \d+\.\d MiB free there", out), out
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["images_seen"] == 8
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.nightly
def test_torchrun_and_a_signal_to_its_agent(common, whole, tmp_path):
    """One folder; SIGTERM to the agent: every rank ends its step, and there is a checkpoint."""
    arguments = [a for a in common if not a.startswith("trainer.max_kimg")]
    arguments += ["trainer=ddp_multinode", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    arguments += ["dataset.batch_size=2", f"runs={tmp_path}"]
    agent = torchrun("--standalone", "--nproc-per-node=2")
    process = start([*arguments, "trainer.max_kimg=100"], launcher=agent)
    for _ in range(1200):
        if list(tmp_path.glob("*/checkpoints/last.ckpt")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out = finished(process, None)
    (folder,) = tmp_path.iterdir()
    seen = read_checkpoint(folder / "checkpoints" / "last.ckpt")["images_seen"]
    assert f"Interrupted at {seen / 1000:.2f} kimg" in out
    assert read_state(folder)["state"] == "interrupted"
    assert {path.name for path in (folder / "logs").iterdir()} == {"rank0.log", "rank1.log"}


def test_a_rank_that_dies_under_torchrun_is_started_again_and_the_run_goes_on(
    common, whole, tmp_path
):
    """kill -9 of rank 1 at 20 images; the agent starts both ranks anew, which find their run."""
    arguments = [*common, "trainer=ddp_multinode", "trainer.accelerator=cpu"]
    arguments += ["trainer.precision=32-true", "dataset.batch_size=2", f"runs={tmp_path}"]
    arguments += [a for a in common if a.startswith("trainer.")]
    agent = torchrun("--standalone", "--nproc-per-node=2", "--max-restarts=1")
    out = finished(start(arguments, launcher=agent, fault="kill:1:20"))
    (folder,) = tmp_path.iterdir()
    assert "started again by torchrun (restart 1)" in out and f"continuing {folder} from" in out
    assert same(whole, read_checkpoint(folder / "checkpoints" / "last.ckpt"))


def test_two_nodes_of_torchrun(common, whole, tmp_path):
    """Two agents find one another; the result is that of two ranks of one node."""
    arguments = [*common, "trainer=ddp_multinode", "trainer.accelerator=cpu"]
    arguments += ["trainer.precision=32-true", "dataset.batch_size=2", f"runs={tmp_path}"]
    arguments += [a for a in common if a.startswith("trainer.")]
    port = 20_000 + os.getpid() % 10_000
    agent = torchrun(
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-id=two",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{port}",
    )
    nodes = [start(arguments, launcher=agent) for _ in range(2)]
    said = "".join(finished(node) for node in nodes)
    (folder,) = tmp_path.iterdir()
    assert said.count("Done: ") == 1
    assert same(whole, read_checkpoint(folder / "checkpoints" / "last.ckpt"))
    assert read_state(folder)["ranks"] == 2 and read_state(folder)["job"] == "torchrun-two"


def test_several_nodes_need_a_launcher(common, tmp_path):
    out = launch_ready([*common, "trainer.num_nodes=2"], tmp_path / "run", 1)
    assert "starts the ranks of one node only; expected torchrun or srun" in out
    assert not (tmp_path / "run").exists()
