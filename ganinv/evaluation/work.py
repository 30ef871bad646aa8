"""Numbered batches over any number of processes and restarts, joined by rank 0.

A job is a list of batches. Whichever process computes batch n, its result is the same, and is
written, whole or not at all, as `OUT/.parts/<n>.safetensors`, marked with the job's settings. A job
that was stopped, however hard, goes on with the batches that have no file; other settings, and the
folder of another command, are refused.

    work = Work(folder, settings={"command": "evaluate.py", ...}, sizes=[16, 16, 5])
    todo = work.begin()                              # rank 0 makes OUT ready, or refuses it
    carry_out(work, todo, job, ranks, compute)       # every rank does its share (ranks.py)
    for tensors, metadata in work.parts(): ...       # rank 0 joins them in order
    work.end()                                       # and forgets them

Where there is a launcher (torchrun, srun) the ranks are its processes; else rank 0 starts them
here. All ranks must see the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ganinv.core.command import printable
from ganinv.core.errors import ConfigError, RunError, explain
from ganinv.core.safe.io import read_safetensors, write_atomic, write_safetensors
from ganinv.run.disk import disk_errors
from ganinv.run.status import is_there, this_process

UNFINISHED = re.compile(r"\..+\.(png|safetensors|json|csv|html|pt|npy)\.\w{8}")
Part = tuple[dict[str, Tensor], dict[str, Any]]  # tensors, and plain values beside them
GO_ON = "make room or make it writable, then the same command: finished batches are kept"


def cut(items: int, batch_size: int) -> list[range]:
    """Batches of consecutive items, the last one as large as what is left."""
    return [range(i, min(i + batch_size, items)) for i in range(0, items, batch_size)]


class Work:
    """The batches of a job in its folder.

    Args:
        folder: OUT.
        settings: all that the results depend on, and under "command" whose they are: plain values.
        sizes: items of each batch, for the progress bar.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, Any], sizes: Sequence[int]) -> None:
        self.folder, self.parts_folder = folder, folder / ".parts"
        self.settings = json.loads(json.dumps(settings))
        self.sizes = list(sizes)
        text = json.dumps(self.settings, sort_keys=True).encode()
        self.mark = hashlib.sha256(text).hexdigest()

    # ------------------------------------------------------------------ whose folder it is

    def check(self) -> None:
        """Refuse a folder that is not this job's; nothing is written.

        Raises:
            ConfigError: it holds other files, another command's or other settings' batches, or a
                process that works in it now.
        """
        if not self.folder.exists() or (self.folder.is_dir() and not any(self.folder.iterdir())):
            return
        begun = self.parts_folder / "settings.json"
        if not begun.is_file():
            raise self._unusable("which holds other files", "a new or empty folder")
        self.check_settings(_read(begun))
        owner = _read(self.parts_folder / "process.json")
        if owner.get("pid") != os.getpid() and _lives(owner):
            raise self._unusable(
                f"in which process {owner['pid']} works now", "a folder for each command"
            )

    def foreign(self) -> bool:
        """Whether `check` refuses the folder."""
        try:
            self.check()
        except ConfigError:
            return True
        return False

    def check_settings(self, theirs: Any) -> None:
        """Compare with the settings that a folder was begun with.

        Raises:
            ConfigError: naming those that differ.
        """
        theirs = theirs if isinstance(theirs, dict) else {}
        command = theirs.get("command")
        if command != self.settings["command"]:
            other = printable(command, 40) if isinstance(command, str) else "another program"
            raise self._unusable(f"begun by {other}", "a new folder")
        ours = self.settings
        different = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
        if different:
            raise self._unusable(
                f"begun with other {', '.join(different)}",
                "the same command, which goes on, or a new folder",
            )

    def _unusable(self, given: str, expected: str) -> ConfigError:
        todo = "choose another folder; nothing was overwritten"
        return ConfigError(explain(f"{self.folder}, {given}", expected, todo))

    # ------------------------------------------------------------------ batches

    def begin(self) -> list[int]:
        """Make the folder ready; the numbers of the batches that are left to do.

        Raises:
            ConfigError: see `check`, or nothing can be written there.
        """
        self.check()
        try:
            settings = self.parts_folder / "settings.json"
            if not settings.is_file():
                write_atomic(settings, json.dumps(self.settings, indent=1).encode())
            process = json.dumps(this_process()).encode()
            write_atomic(self.parts_folder / "process.json", process)
            for path in self.folder.rglob(".*"):  # what a killed process had not renamed yet
                if UNFINISHED.fullmatch(path.name):
                    path.unlink()
        except OSError as error:
            given = f"{self.folder} cannot be written: {error.filename}: {error.strerror}"
            todo = "choose another, or make room; nothing was computed yet"
            raise ConfigError(explain(given, "a folder for results", todo)) from error
        return self._missing()

    def path(self, number: int) -> Path:
        """The file of a finished batch."""
        return self.parts_folder / f"{number:08d}.safetensors"

    def has(self, number: int) -> bool:
        """Whether a batch is finished: its file is whole, and of these settings."""
        try:
            with safe_open(self.path(number), framework="pt") as file:
                return json.loads(file.metadata()["part"])["settings"] == self.mark
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return False

    def save(self, number: int, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write a finished batch.

        Raises:
            RunError: the disk does not take it.
        """
        with disk_errors(self.folder, GO_ON):
            part = metadata | {"settings": self.mark}  # one entry: safetensors sorts none
            write_safetensors(self.path(number), tensors, {"part": part})

    def finished_items(self) -> int:
        """Items of the batches that have a file."""
        names = {entry.name for entry in os.scandir(self.parts_folder)}
        return sum(n for i, n in enumerate(self.sizes) if self.path(i).name in names)

    def parts(self, patience: float = 0.0) -> Iterator[Part]:
        """Every batch in order.

        Args:
            patience: seconds until a file of another machine may be seen here (NFS takes 30).

        Raises:
            RunError: some are not there.
        """
        until = time.monotonic() + patience
        while (missing := self._missing()) and time.monotonic() < until:
            time.sleep(1)
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
            given = (
                f"{len(missing)} of {len(self.sizes)} batches ({shown}) are not in {self.folder}"
            )
            expected = "those of all ranks, which must share this folder"
            raise RunError(explain(given, expected, "run the same command again"))
        for number in range(len(self.sizes)):
            tensors, metadata = read_safetensors(self.path(number))
            yield tensors, metadata["part"]

    def _missing(self) -> list[int]:
        return [number for number in range(len(self.sizes)) if not self.has(number)]

    def end(self) -> None:
        """Forget the batches, once what was made of them is written."""
        done = self.folder / ".parts-joined"
        shutil.rmtree(done, ignore_errors=True)
        self.parts_folder.rename(done)
        shutil.rmtree(done, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of a folder's; {} for one that holds something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote this is certainly there."""
    kinds = {"pid": int, "processes": str, "born": int}
    if not all(type(owner.get(name)) is kind for name, kind in kinds.items()):
        return False
    return is_there(owner["pid"], owner["processes"], owner["born"]) is True
