"""`state.json` in a run's folder: where the run stands, for people and for `ganinv runs`.

Rank 0 writes it, whole or not at all, at most every few seconds and whenever the state changes. Its
time is a heartbeat: a run whose state is `running` and whose heartbeat is old has died.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from threading import Lock
from typing import Any

from ganinv import __version__
from ganinv.core.command import program
from ganinv.core.safe.io import write_atomic

NAME = "state.json"
MOST_BYTES = 1 << 20
STATES = ("starting", "running", "interrupted", "finished", "failed")
log = logging.getLogger(__name__)
_changing = Lock()


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # NaN is not


def _best(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(_number(value.get(name)) for name in ("value", "kimg"))
    )


def _upload(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(_whole(value.get(name)) for name in ("files", "bytes"))
        and _text(value.get("fault"))
        and _number(value.get("since"))
    )


KINDS = {  # entry -> whether a value can be its
    "state": lambda value: _text(value) and value in STATES,
    "reason": lambda value: value is None or _text(value),
    "born": lambda value: value is None or _whole(value),
    "best": _best,
    "upload": _upload,
    **dict.fromkeys(["pid", "ranks", "skipped_steps"], _whole),
    **dict.fromkeys(["time", "kimg", "max_kimg"], _number),
    **dict.fromkeys(["ganinv", "job", "wandb_id", "host", "processes", "monitor"], _text),
    **dict.fromkeys(["command", "started_in", "name", "address", "token"], _text),
}


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a run; empty where none was written, or where what stands there is none, which
    is logged."""
    state, fault = look_at_state(folder)
    if fault is not None:
        log.warning("%s: %s; taken as if it were not there", folder / NAME, fault)
    return state


def look_at_state(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The state of a run, and what is wrong with it: entries that are there have their `KINDS`."""
    path = folder / NAME
    try:
        if not path.is_file():
            return {}, None
        with open(path, "rb") as file:
            return parse_state(file.read(MOST_BYTES + 1))
    except OSError as error:
        return {}, str(error.strerror)


def parse_state(content: bytes) -> tuple[dict[str, Any], str | None]:
    """The same, of a file's bytes."""
    if len(content) > MOST_BYTES:
        return {}, f"more than {MOST_BYTES:,} bytes, more than any state has"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}, "not JSON"
    if not isinstance(found, dict):
        return {}, f"a {type(found).__name__} instead of entries"
    odd = next(
        (name for name, kind in KINDS.items() if name in found and not kind(found[name])), None
    )
    return ({}, f"an odd entry {odd!r}") if odd else (found, None)


def update_state(folder: Path, **changes: Any) -> None:
    """Change some entries and renew the heartbeat; threads of the process may do so at once."""
    with _changing:
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
    return [*program(), *(word for word in sys.argv[1:] if not word.startswith("hydra."))]


def beginning(job: str, name: str, wandb_id: str, max_kimg: float) -> dict[str, Any]:
    """What is known when a run begins."""
    return {
        "state": "starting",
        "reason": None,
        "ganinv": __version__,
        "job": job,
        "name": name,
        "wandb_id": wandb_id,
        **this_process(),
        "command": shlex.join(_words()),
        "started_in": os.getcwd(),
        "max_kimg": max_kimg,
    }
