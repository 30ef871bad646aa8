"""`state.json` in a run's folder: where the run stands, for people and for `ganinv runs`.

Rank 0 writes it, whole or not at all, at most every few seconds and whenever the state changes. Its
time is a heartbeat: a run whose state is `running` and whose heartbeat is old has died.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from ganinv import __version__
from ganinv.core.safe.io import write_atomic

NAME = "state.json"


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a run; empty where none was written."""
    path = folder / NAME
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def update_state(folder: Path, **changes: Any) -> None:
    """Change some entries and renew the heartbeat."""
    state = read_state(folder) | changes | {"time": time.time()}
    write_atomic(folder / NAME, json.dumps(state, indent=1).encode())


def processes() -> str:
    """Where process numbers mean something: this machine, and on Linux this container of it."""
    path = "/proc/self/ns/pid"
    return f"{platform.node()} {os.readlink(path) if os.path.exists(path) else ''}"


def _birth(pid: int) -> int | None:
    """When a living process of this machine began, in ticks since the machine did; None for one
    that is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            entries = file.read().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return None
    return None if entries[0] in "ZX" else int(entries[19])


def is_there(pid: int, where: str, born: int | None = None) -> bool | None:
    """Whether a process lives, and is the one that was born then: a container that is started again
    gives its processes the same numbers. None if it cannot be seen from here: it is elsewhere, by
    `processes()`, or there is no /proc."""
    if where != processes() or not os.path.exists("/proc/self/stat"):
        return None
    found = _birth(pid)
    return found is not None and born in (None, found)


def this_process() -> dict[str, Any]:
    """What another command needs to see whether this process still lives."""
    return {
        "host": platform.node(),
        "processes": processes(),
        "pid": os.getpid(),
        "born": _birth(os.getpid()),
    }


def _words() -> list[str]:
    """The command line without what Lightning adds to the ranks that it starts."""
    return [word for word in sys.argv if not word.startswith("hydra.")]


def beginning(job: str, wandb_id: str, max_kimg: float) -> dict[str, Any]:
    """What is known when a run begins."""
    return {
        "state": "starting",
        "reason": None,
        "ganinv": __version__,
        "job": job,
        "wandb_id": wandb_id,
        **this_process(),
        "command": shlex.join(["python", *_words()]),
        "started_in": os.getcwd(),
        "max_kimg": max_kimg,
    }
