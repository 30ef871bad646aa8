"""`ganinv runs`: the runs in a folder, where each stands, and how to go on with it."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ganinv.core.command import entry, override, printable

WIDTH = 160  # of a table that goes to no terminal
SILENT = 600.0  # seconds without a heartbeat after which a run on another machine counts as dead


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "runs",
        help="list training runs: state, progress, best metric, and how to resume each",
        description="Reads the state.json of every run in a folder; changes nothing. "
        "A run is dead when its state is running and its process is gone, or, where that cannot be "
        "seen (another machine or container), when it gave no sign for ten minutes.",
    )
    parser.add_argument(
        "folder", nargs="?", default="runs", help="a folder or an address; default: runs"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, then the commands."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ganinv.run.status import NAME

    table = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for column in ("run", "state", "kimg", "best", "at kimg", "last sign"):
        table.add_column(column, overflow="fold", no_wrap=column == "run")
    commands, found = [], list(_found(args.folder))
    for name, place, state, fault in found:
        cells = (name, *cells_of(state)) if fault is None else (name, "unreadable", *"----")
        table.add_row(*(Text(printable(cell, 200)) for cell in cells))
        last = name.rpartition("/")[2]
        if fault is not None:
            commands.append(f"{printable(last)}:\n  {NAME}: {printable(fault)}")
        elif cells[1] not in ("finished", "running", "starting"):
            commands.append(f"{printable(last)}:\n  {resume_command(place, state)}")
            if state.get("reason") and cells[1] == "failed":
                commands[-1] += f"\n  failed: {printable(state['reason'].splitlines()[0])}"
        if fault is None and state.get("upload"):
            commands.append(f"{printable(last)}:\n  {waiting(state)}")
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to wrap at
        console = Console(width=WIDTH)
    console.print(table if found else Text(printable(f"no runs in {args.folder}")))
    if commands:
        print("To go on:\n" + "\n".join(commands))
    return 0


def _found(where: str) -> Iterator[tuple[str, str, dict[str, Any], str | None]]:
    """Every run's name, place, state, and what is wrong with that.

    Raises:
        DataError: no such folder, or an address that cannot be read.
    """
    from ganinv.core.errors import DataError, explain
    from ganinv.run.status import NAME, look_at_state
    from ganinv.run.storage.base import is_address

    if is_address(where):
        yield from _found_afar(where.rstrip("/"))
        return
    folder = Path(where)
    if not folder.is_dir():
        raise DataError(
            explain(f"no folder {folder}", "a folder of runs", "pass it: ganinv runs FOLDER")
        )
    for path in sorted(folder.glob(f"**/{NAME}")):
        if path.is_file():
            run = path.parent
            name = run.name if run == folder else str(run.relative_to(folder))
            yield name, str(run.resolve()), *look_at_state(run)


def _found_afar(address: str) -> Iterator[tuple[str, str, dict[str, Any], str | None]]:
    from ganinv.core.errors import DataError, explain
    from ganinv.run.status import MOST_BYTES, NAME, parse_state
    from ganinv.run.storage.base import StorageFault, patiently
    from ganinv.run.storage.open import open_storage

    storage = open_storage(address, "the address")
    try:
        files = patiently(storage.files, address)
        for file in sorted(files):
            name, _, last = f"/{file}".rpartition("/")
            if last == NAME:
                content = patiently(partial(storage.read, file, MOST_BYTES), storage.at(file))
                run = storage.at(name[1:]) if name else address
                yield name[1:] or address.rpartition("/")[2], run, *parse_state(content)
    except StorageFault as error:
        raise DataError(
            explain(f"{address} cannot be read: {error}", "an address of runs",
                    "check the address, the keys and the network")
        ) from error  # fmt: skip


def waiting(state: dict[str, Any]) -> str:
    """What could not be copied to where the run is kept."""
    upload = state["upload"]
    return (
        f"{upload['files']} files ({upload['bytes'] / 2**20:.1f} MiB) wait to be copied to "
        f"{printable(state.get('address', 'its address'), 300)} since "
        f"{_ago(time.time() - upload['since'])}: {printable(upload['fault'])}"
    )


def cells_of(state: dict[str, Any]) -> tuple[str, ...]:
    """A run's cells: state, kimg, best value, when that was, last sign of life."""
    best = state.get("best")
    length = f" of {state['max_kimg']:g}" if "max_kimg" in state else ""
    return (
        condition(state),
        f"{state.get('kimg', 0):.2f}{length}",
        f"{state.get('monitor', '')} {best['value']:.4g}" if best else "-",
        f"{best['kimg']:.2f}" if best else "-",
        _ago(time.time() - state["time"]) if "time" in state else "-",
    )


def condition(state: dict[str, Any]) -> str:
    """starting, running, finished, interrupted, failed, dead or unknown."""
    said = str(state.get("state", "unknown"))
    if said not in ("starting", "running"):
        return said
    from ganinv.run.status import is_there

    seen = {"pid", "processes"} <= set(state)
    there = is_there(state["pid"], state["processes"], state.get("born")) if seen else None
    silent = time.time() - state.get("time", 0) >= SILENT
    return "dead" if there is False or (there is None and silent) else said


def resume_command(place: str | Path, state: dict[str, Any]) -> str:
    """What starts a run again where it stood: its own command, in its own folder, ready to be
    pasted. Only a training's is handed on: a file may hold anything.

    Args:
        place: the folder's path, from the root, or its address.
        state: what is known of the run.
    """
    where = state.get("address", str(place))
    try:
        words = shlex.split(state.get("command", ""))
    except ValueError:
        words = []
    start, rest = words[:2], words[2:]
    script = start[:1] == ["python"] and start[1:] and Path(start[1]).name == "train.py"
    ours = script or start == ["ganinv", "train"]
    if printable(where, len(where)) != where:
        return f"(no terminal takes this name: rename the folder) {printable(where)}"
    if not ours or printable(state["command"]) != state["command"]:
        return f"(started by another program) {entry('train')} ... {override('run_dir', where)}"
    kept = [word for word in rest if not word.startswith(("resume=", "run_dir="))]
    return f"{shlex.join([*start, *kept])} {override('run_dir', where)} resume=auto"


def _ago(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name} ago"
    return f"{max(0.0, seconds):.0f} s ago"
