"""A real SLURM, started here: srun, sbatch, an array, preemption, and a sweep by submitit.

Skipped, with the reason, where SLURM cannot be started: not root, or Debian's packages slurmctld,
slurmd, slurm-client and munge are absent (.ci/run installs them where it can).
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganinv.run.checkpoint import read_checkpoint
from ganinv.run.status import read_state
from tests.processes import environment
from tests.runs import ROOT, plain_overrides, tiny_generator_file

pytestmark = [pytest.mark.slurm, pytest.mark.ddp]
START = ROOT / "tests" / "slurm" / "start.sh"
RANKS = ["trainer=ddp_multinode", "trainer.accelerator=cpu", "trainer.precision=32-true"]


@pytest.fixture(scope="module", autouse=True)
def slurm():
    """The cluster: this machine."""
    needed = ("slurmctld", "slurmd", "srun", "munged")
    missing = [name for name in needed if shutil.which(name, path="/usr/sbin:/usr/bin") is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no SLURM here: {missing or 'not root'}")
    done = subprocess.run(["bash", START], capture_output=True, text=True, timeout=90)
    if done.returncode:
        pytest.skip(f"SLURM did not start: {done.stderr.strip()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", "/tmp/ganinv-slurm/slurm.conf")
        yield
    subprocess.run(["bash", START, "stop"], timeout=90)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Small runs over whatever ranks SLURM starts; the faces are drawn by the first one."""
    folder = tmp_path_factory.mktemp("assets")
    return [
        *plain_overrides("psp", tiny_generator_file(folder), folder / "cache"),
        *RANKS,
        "trainer.threads=1",
        "dataset.batch_size=2",
        "trainer.max_kimg=0.008",
        "trainer.val_every_kimg=1",
    ]


def told(*command, **more):
    done = subprocess.run(
        command, cwd=ROOT, env=environment() | more, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit(folder, *options, script=None, arguments=()):
    """sbatch; returns the job's number and the file of its output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sbatch", "--parsable", f"--output={folder}/%j.out", *options, str(script), *arguments],
        cwd=ROOT,
        env=environment() | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(condition, what, seconds=400):
    """Until it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.25)
    raise AssertionError(f"no {what} within {seconds} s: {told('squeue')}")


def over(job):
    return lambda: job not in told("squeue", "-h", "-o", "%A %i")


@pytest.mark.nightly
def test_srun_starts_two_ranks_in_one_folder(arguments, tmp_path):
    out = told("srun", "--ntasks=2", sys.executable, "train.py", *arguments, f"runs={tmp_path}")
    (folder,) = tmp_path.iterdir()
    assert out.count("Done: ") == 1 and f"in {folder}" in out
    state = read_state(folder)
    assert state["ranks"] == 2 and state["job"].startswith("slurm-")
    assert {path.name for path in (folder / "logs").iterdir()} == {"rank0.log", "rank1.log"}


def test_a_preempted_job_goes_back_into_the_queue_and_on_to_its_end(arguments, tmp_path):
    """docker/slurm.sbatch as it is, on a node without GPUs. SIGUSR1, as SLURM sends it before the
    time is up: checkpoint, requeue, and the restarted job goes on with its own run."""
    runs = tmp_path / "runs"
    more = [*arguments, f"runs={runs}", "trainer.max_kimg=0.2"]
    script = without_gpus(ROOT / "docker" / "slurm.sbatch", tmp_path)
    job = submit(tmp_path, "--nodes=1", "--ntasks-per-node=2", script=script, arguments=more)
    wait_for(lambda: list(runs.glob("*/checkpoints/last.ckpt")), "checkpoint")
    told("scancel", "--signal=USR1", job)
    wait_for(lambda: "PD" in told("squeue", "-h", "-j", job, "-o", "%t"), "job back in the queue")
    (folder,) = runs.iterdir()
    seen = read_checkpoint(folder / "checkpoints" / "last.ckpt")["images_seen"]
    assert 0 < seen < 200 and read_state(folder)["state"] == "interrupted"
    told("scontrol", "update", f"jobid={job}", "StartTime=now")  # SLURM would wait two minutes
    wait_for(over(job), "end")
    out = (tmp_path / f"{job}.out").read_text()
    assert f"SLURM will start job {job} again" in out  # once its files are where they are kept
    assert f"continuing {folder} from" in out and f"Done: 0.20 kimg in {folder}" in out
    assert list(runs.iterdir()) == [folder] and (folder / "finished").is_file()


def without_gpus(script, folder):
    """The script, but for the lines that ask for GPUs and for many cores."""
    kept = [
        line
        for line in script.read_text().splitlines()
        if not line.startswith(("#SBATCH --gpus", "#SBATCH --cpus-per-task"))
    ]
    path = folder / script.name
    path.write_text("\n".join(kept) + "\n")
    return path


@pytest.mark.nightly
def test_an_array_gives_each_task_a_run_of_its_own(arguments, tmp_path):
    script = tmp_path / "array.sh"
    words = shlex.join([*arguments, f"runs={tmp_path / 'runs'}"])
    script.write_text(
        "#!/bin/bash\n#SBATCH --ntasks=1\n"
        f"srun {sys.executable} train.py {words} seed=$SLURM_ARRAY_TASK_ID\n"
    )
    job = submit(tmp_path, "--array=3-4", script=script)
    wait_for(over(job), "end")
    states = [read_state(folder) for folder in (tmp_path / "runs").iterdir()]
    assert [state["state"] for state in states] == ["finished"] * 2
    assert len({state["job"] for state in states}) == 2


@pytest.mark.nightly
def test_a_sweep_by_submitit(arguments, tmp_path):
    """python train.py -m hydra/launcher=submitit_slurm: a job a value."""
    told(
        sys.executable,
        "train.py",
        "-m",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=debug",
        "hydra.launcher.tasks_per_node=1",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=1",
        "hydra.launcher.timeout_min=5",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        *arguments,
        f"runs={tmp_path / 'runs'}",
        "seed=1,2",
    )
    states = [read_state(folder) for folder in (tmp_path / "runs").iterdir()]
    assert [(s["state"], s["ranks"]) for s in states] == [("finished", 1)] * 2, json.dumps(states)
