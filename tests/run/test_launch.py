"""Who started us, and the files in docker/: what they name exists, what they pass is understood."""

import atexit
import os
import platform
import re
import shlex
import shutil
import subprocess
import zipfile

import pytest
import yaml
from torch.distributed.run import get_args_parser

from ganinv.core.errors import ConfigError
from ganinv.run import folder as run_folder
from ganinv.run.folder import begin, newest_unfinished, open_run
from ganinv.run.launch import rank_info, resolve_size
from ganinv.run.status import processes, read_state, update_state
from tests.processes import server
from tests.runs import ROOT, composed

DOCKER = ROOT / "docker"
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "77",
    "SLURM_RESTART_COUNT": "2",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "ganinv",
    "TORCHELASTIC_RESTART_COUNT": "1",
    "RANK": "9",
    "WORLD_SIZE": "16",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "8",
    "GROUP_RANK": "1",
}


def test_every_launcher_is_recognised(monkeypatch):
    monkeypatch.delenv("GANINV_DECISION", raising=False)
    assert (rank_info().launcher, rank_info().rank, rank_info().world_size) == ("script", 0, 1)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    here = rank_info()
    assert (here.launcher, here.rank, here.local_rank, here.node) == ("srun", 5, 1, 1)
    assert (here.per_node, here.nodes, here.restarts, here.job) == (4, 2, 2, "slurm-77")
    for name, value in TORCHRUN.items():  # inside an sbatch script torchrun counts
        monkeypatch.setenv(name, value)
    here = rank_info()
    assert (here.launcher, here.rank, here.per_node, here.nodes) == ("torchrun", 9, 8, 2)
    assert (here.restarts, here.job) == (1, "torchrun-ganinv")


def test_numbers_come_from_the_launcher_or_agree_with_it(monkeypatch):
    with pytest.raises(ConfigError, match="starts the ranks of one node only; expected torchrun"):
        resolve_size(rank_info(), None, None)
    assert resolve_size(rank_info(), 2, 1) == (2, 1)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    assert resolve_size(rank_info(), None, None) == (4, 2)
    assert resolve_size(rank_info(), 4, 2) == (4, 2)
    with pytest.raises(ConfigError, match="trainer.devices=3, but srun started 4; expected the"):
        resolve_size(rank_info(), 3, None)


def test_a_batch_job_shows_every_sweep_that_would_start_ranks_by_itself(monkeypatch):
    from ganinv.trainer import build

    class Sweep:
        mode = build.RunMode.MULTIRUN

    monkeypatch.setattr(build.HydraConfig, "get", lambda: Sweep)
    with pytest.raises(ConfigError, match="trainer.devices=2 in a multirun.*submitit_slurm"):
        build._check_not_a_sweep(2)


@pytest.mark.parametrize("path", ["install.sh", "slurm.sbatch"])
def test_scripts_are_bash(path):
    subprocess.run(["bash", "-n", DOCKER / path], check=True)


def commands():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    yield compose["services"]["train"]["command"]
    service, job = yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text())
    assert service["spec"]["clusterIP"] == "None"
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    command = container["command"]
    assert f"--nnodes={job['spec']['completions']}" in command
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    assert f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}" in command
    name, service_name = job["metadata"]["name"], service["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-0.{service_name}:29500" in command
    grace = pod["terminationGracePeriodSeconds"]
    (shutdown,) = [c for c in command if c.startswith("--shutdown-timeout=")]
    assert int(shutdown.split("=")[1]) < grace
    yield command


@pytest.mark.parametrize("command", list(commands()), ids=["compose", "kubernetes"])
def test_what_containers_run_is_understood(command):
    """By torchrun's own parser, and train.py's options by Hydra."""
    assert command[0] == "torchrun"
    parsed = get_args_parser().parse_args(command[1:])
    assert parsed.training_script == "train.py" and (ROOT / "train.py").is_file()
    cfg = composed(parsed.training_script_args)
    assert cfg.trainer.devices is None and cfg.resume == "auto" and cfg.run_dir.startswith("/runs")
    assert cfg.dataset.root.endswith("/ffhq256")


def test_the_image_holds_what_ci_tests():
    """The Dockerfile installs by the script that .ci/run uses, from files that are there."""
    lines = (DOCKER / "Dockerfile").read_text()
    assert "bash docker/install.sh /venv" in lines and "USER ganinv" in lines
    assert "bash docker/install.sh" in (ROOT / ".ci" / "run").read_text()
    extras = re.search(r'install\.sh /venv "(\w+)"', lines)[1]
    assert f"{extras} = [" in (ROOT / "pyproject.toml").read_text()
    for line in re.findall(r"^COPY \S+ (.*) \S+$", lines, re.M):
        for name in shlex.split(line):
            assert (ROOT / name).exists(), name
    assert re.search(r"^FROM nvidia/cuda:\d+\.\d+\.\d+-runtime-ubuntu24\.04$", lines, re.M)
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["train"]["build"]
    assert (DOCKER / compose["context"] / compose["dockerfile"]).is_file()


def test_the_sbatch_script_asks_for_what_a_requeue_needs():
    text = (DOCKER / "slurm.sbatch").read_text()
    assert "#SBATCH --requeue" in text and re.search(r"#SBATCH --signal=USR1@\d+", text)
    assert 'srun --kill-on-bad-exit=1 python train.py trainer=ddp_multinode "$@"' in text
    assert not re.search(r"WANDB_API_KEY=\S", text)


def test_jobs_of_one_second_have_folders_of_their_own(monkeypatch, tmp_path):
    """SLURM starts an array's jobs together; of other runs each makes the next name its own."""
    cfg = composed(["logger=csv", f"runs={tmp_path}"])
    monkeypatch.setattr("ganinv.run.folder.time.strftime", lambda form: "20260101-000000")
    runs = [open_run(cfg) for _ in range(3)]
    assert [run.folder.name for run in runs] == [
        f"20260101-000000-psp-avatars64{number}" for number in ("", "_2", "_3")
    ]
    third = runs[2].folder / "checkpoints"
    third.mkdir()
    (third / "last.ckpt").write_bytes(b"")
    assert newest_unfinished(tmp_path, "psp-avatars64") == runs[2].folder
    shutil.rmtree(third)
    first = runs[0]
    begin(first)
    update_state(first.folder, job="another", pid=os.getppid(), born=None)
    with pytest.raises(ConfigError, match=r"another run \(another, process \d+ on .*under way"):
        begin(first)
    gone = subprocess.Popen(["true"])
    gone.wait()
    update_state(first.folder, job="another", pid=gone.pid)  # it died: the folder is free again
    begin(first)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    folders = [open_run(cfg).folder]
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    folders.append(open_run(cfg).folder)
    assert [folder.name for folder in folders] == [
        "20260101-000000-psp-avatars64-j41",
        "20260101-000000-psp-avatars64-j42",
    ]
    for folder in folders:
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    assert newest_unfinished(tmp_path, "psp-avatars64") == folders[1]


def test_a_run_that_is_under_way_is_neither_resumed_nor_written_to(monkeypatch, tmp_path, capsys):
    """Here by its process, on another machine by its heartbeat; a dead one is free."""
    cfg = composed(["logger=csv", f"runs={tmp_path}", "resume=auto"])
    running = tmp_path / "20260101-000000-psp-avatars64"
    with zipfile.ZipFile(_checkpoint(running), "w") as file:
        file.writestr("whole", b"1")
    state = {"state": "running", "job": "another", "host": platform.node(), "pid": os.getppid()}
    update_state(running, **state, processes=processes(), born=None)
    assert open_run(cfg).folder != running
    assert f"{running} is left alone, another run is under way there" in capsys.readouterr().out
    composed_again = composed(["logger=csv", f"run_dir={running}", "resume=auto"])
    with pytest.raises(ConfigError, match=r"under way; expected a folder for each .*stop that one"):
        open_run(composed_again)
    assert capsys.readouterr().out == ""
    update_state(running, processes="another container")
    with pytest.raises(ConfigError, match=r"process \d+ on .*\) is under way.*again in 30 s"):
        open_run(composed_again)
    update_state(running, processes=processes(), born=1)  # its number went to another process
    assert open_run(composed_again).folder == running
    gone = subprocess.Popen(["true"])
    gone.wait()
    update_state(running, pid=gone.pid, born=None)
    leftover = running / "checkpoints" / ".last.ckpt.k3x"
    leftover.write_bytes(b"half of a chec")
    begin(open_run(cfg))
    state = read_state(running)
    assert state["pid"] == os.getpid() and state["born"] > 0 and not leftover.exists()


def _checkpoint(folder):
    (folder / "checkpoints").mkdir(parents=True)
    return folder / "checkpoints" / "last.ckpt"


def test_names_are_unique_among_processes_too(tmp_path):
    """Three at once; those that are refused leaves nothing."""
    ends = [server.Pipe() for _ in range(3)]
    started = [server.Process(target=_name_a_run, args=(tmp_path, end)) for _, end in ends]
    for process in started:
        process.start()
    names = {ours.recv() for ours, _ in ends}
    assert names == {f"20260101-000000-psp-avatars64{n}" for n in ("", "_2", "_3")}
    for (ours, _), process in zip(ends, started, strict=True):
        ours.send("go")
        process.join(60)
        assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == []


def _name_a_run(runs, end):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder.time, "strftime", lambda form: "20260101-000000")
        opened = open_run(composed(["logger=csv", f"runs={runs}"]))
        end.send(opened.folder.name)
        end.recv()
    atexit._run_exitfuncs()  # as at the end of an interpreter


def test_a_run_of_a_longer_name_is_another_one(tmp_path):
    for name in ("psp", "psp-avatars64"):
        folder = tmp_path / f"20260101-000000-{name}"
        _checkpoint(folder).write_bytes(b"")
        update_state(folder, name=name)
    assert newest_unfinished(tmp_path, "psp").name.endswith("-psp")
    assert newest_unfinished(tmp_path, "psp-avatars64").name.endswith("-avatars64")
