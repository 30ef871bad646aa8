"""`ganinv runs`: the runs in a folder, where each stands, and how to go on with it."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

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
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="default: runs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, then the commands."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ganinv.core.errors import DataError, explain
    from ganinv.run.status import read_state

    if not args.folder.is_dir():
        raise DataError(
            explain(f"no folder {args.folder}", "a folder of runs", "pass it: ganinv runs FOLDER")
        )
    found = [path.parent for path in sorted(args.folder.glob("**/state.json"))]
    table = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for column in ("run", "state", "kimg", "best", "at kimg", "last sign"):
        table.add_column(column, overflow="fold", no_wrap=column == "run")
    commands = []
    for folder in found:
        state = read_state(folder)
        now = condition(state)
        best = state.get("best") or {}
        table.add_row(
            str(folder.relative_to(args.folder)) if folder != args.folder else folder.name,
            now,
            f"{state.get('kimg', 0):.2f} of {state['max_kimg']:g}",
            f"{state.get('monitor', '')} {best['value']:.4g}" if best else "-",
            f"{best['kimg']:.2f}" if best else "-",
            _ago(time.time() - state["time"]),
        )
        if now not in ("finished", "running", "starting"):
            commands.append(f"{folder.name}:\n  {resume_command(folder, state)}")
            if state.get("reason") and now == "failed":
                commands[-1] += f"\n  failed: {state['reason'].splitlines()[0]}"
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to wrap at
        console = Console(width=WIDTH)
    console.print(table if found else f"no runs in {args.folder}")
    if commands:
        print("To go on:\n" + "\n".join(commands))
    return 0


def condition(state: dict[str, Any]) -> str:
    """starting, running, finished, interrupted, failed or dead."""
    said = str(state["state"])
    if said not in ("starting", "running"):
        return said
    from ganinv.run.status import is_there

    there = is_there(state["pid"], state["processes"], state["born"])
    silent = time.time() - state["time"] >= SILENT
    return "dead" if there is False or (there is None and silent) else said


def resume_command(folder: Path, state: dict[str, Any]) -> str:
    """What starts a run again where it stood: its own command, in its own folder."""
    words = [w for w in shlex.split(state["command"]) if not w.startswith(("resume=", "run_dir="))]
    return shlex.join([*words, f"run_dir={folder.resolve()}", "resume=auto"])


def _ago(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name} ago"
    return f"{seconds:.0f} s ago"
