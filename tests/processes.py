"""Runs of train.py in real processes, as a user or a cluster starts them."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.faults import sitecustomize as faults
from tests.runs import ROOT

FAULTS = Path(__file__).parent / "faults"


@cache
def can_mount() -> bool:
    """Whether this process may mount a file system."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


def environment(fault: str = "") -> dict[str, str]:
    """One thread a process, and perhaps a fault: `what:rank:images` (see faults/)."""
    stale = ("GANINV_RUN", "GANINV_DECISION", "SLURM_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(stale) or k == "SLURM_CONF"}
    paths = [str(FAULTS)] * bool(fault) + [str(ROOT)]
    added = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return kept | added | {"GANINV_TEST_FAULT": fault}


def start(
    arguments: list[str],
    *,
    fault: str = "",
    launcher: tuple[str, ...] = (sys.executable,),
    new_group: bool = False,
    **extra: str,
) -> subprocess.Popen:
    """`launcher train.py arguments`, its output in one pipe; in a group of processes of its own, a
    signal to which is a terminal's."""
    return subprocess.Popen(
        [*launcher, "train.py", *arguments],
        cwd=ROOT,
        env=environment(fault) | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=new_group,
        preexec_fn=hear_ctrl_c,
    )


def hear_ctrl_c() -> None:
    """Also where the tests run in the background of a script, whose children ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(process: subprocess.Popen, code: int | None = 0) -> str:
    """Its output, once it ended as expected (None: in any way but well)."""
    out, _ = process.communicate(timeout=300)
    good = process.returncode == code if code is not None else process.returncode != 0
    assert good, f"exit code {process.returncode}\n{out}"
    return out


def launch(arguments: list[str], folder: Path, code: int | None = 0, fault: str = "") -> str:
    """`python train.py arguments` in `folder`; returns what it said."""
    return finished(start([*arguments, f"run_dir={folder}"], fault=fault), code)


def torchrun(*options: str) -> tuple[str, ...]:
    """torchrun of this environment."""
    return (sys.executable, "-m", "torch.distributed.run", *options)


server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload([__name__, "ganinv.cli._fitting", "ganinv.cli._measuring"])


def launch_ready(
    arguments: list[str], folder: Path, code: int | None = 0, fault: str = "", ranks: int = 1
) -> str:
    """`launch`, but its processes are forked from one that has imported everything: ten of them
    take as long as an interpreter that starts from nothing. Several ranks are told of each other
    the way torchrun does it.

    A run that must fail (None) fails on every rank; another code is rank 0's.
    """
    said = folder.with_suffix(".txt")
    said.write_text("")
    elastic = {"TORCHELASTIC_RUN_ID": folder.name, "TORCHELASTIC_RESTART_COUNT": "0"}
    elastic |= {"WORLD_SIZE": f"{ranks}", "LOCAL_WORLD_SIZE": f"{ranks}", "GROUP_RANK": "0"}
    elastic |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{_free_port()}"}
    processes = []
    for rank in range(ranks):
        place = elastic | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} if ranks > 1 else {}
        words = [f"trainer.devices={ranks}", f"run_dir={folder}", *arguments]
        given = (words, fault, said, environment(fault) | place)
        processes.append(server.Process(target=_run, args=given))
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    codes = [process.exitcode for process in processes]
    good = all(codes) if code is None else codes[0] == code
    assert good, f"exit codes {codes}\n{said.read_text()}"
    return said.read_text()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def command_ready(entry: str, arguments: list[str], folder: Path, code: int = 1) -> str:
    """`python <entry> arguments`, forked as `launch_ready` forks; what it said."""
    said = folder / "said.txt"
    said.write_text("")
    process = server.Process(target=_run, args=(arguments, "", said, environment(), entry))
    process.start()
    process.join(300)
    assert process.exitcode == code, f"exit code {process.exitcode}\n{said.read_text()}"
    return said.read_text()


KILLED = """
import os, runpy, signal, sys
from ganinv.inversion.{module} import {method} as Method
losses, calls = Method.losses, []

def dying(*given):
    calls.append(given)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return losses(*given)

Method.losses = dying
sys.argv[0] = "{entry}"
runpy.run_path("{entry}", run_name="__main__")
"""


def killed_at_a_step(
    entry: str, arguments: list[str], folder: Path, *, module: str, method: str, call: int
) -> None:
    """`python <entry> arguments`, which kill -9 ends at the n-th step of a per-image method."""
    script = folder / "killed.py"
    script.write_text(KILLED.format(entry=entry, module=module, method=method, call=call))
    command_ready(str(script), arguments, folder, code=-signal.SIGKILL)


def _run(
    arguments: list[str], fault: str, said: Path, wanted: dict[str, str], entry: str = "train.py"
) -> None:
    """In the new process: what `python <entry> arguments` does."""
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)
    os.chdir(ROOT)
    sys.argv = [entry, *arguments]
    if fault:
        faults.install(fault)
    runpy.run_path(entry, run_name="__main__")
