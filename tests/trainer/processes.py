"""Runs of train.py in real processes, as a user or a cluster starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.runs import ROOT

FAULTS = Path(__file__).parent / "faults"


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
    **extra: str,
) -> subprocess.Popen:
    """`launcher train.py arguments`, its output in one pipe."""
    return subprocess.Popen(
        [*launcher, "train.py", *arguments],
        cwd=ROOT,
        env=environment(fault) | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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
