"""`.uploaded.json` in a run's local folder: which of its files have arrived where it is kept."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganinv.core.safe.io import write_atomic

NAME = ".uploaded.json"
RANKING = "checkpoints/best.json"  # the best checkpoints there are, the first one first
BEST = re.compile(r"checkpoints/best-\d{1,15}\.ckpt")
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Arrived:
    """A file as it was when it was copied, and what the store calls that content.

    Attributes:
        bytes: its length.
        mtime_ns: when it had been written.
        inode: of the file; two names of one content share it.
        mark: the store's (`Entry.mark`).
    """

    bytes: int
    mtime_ns: int
    inode: int
    mark: str

    def is_of(self, found: os.stat_result) -> bool:
        """Whether a file is still that one."""
        return self.key == (found.st_size, found.st_mtime_ns, found.st_ino)

    @property
    def key(self) -> tuple[int, int, int]:
        """What identifies the content on this disk."""
        return self.bytes, self.mtime_ns, self.inode


def arrived(found: os.stat_result, mark: str) -> Arrived:
    """A file that was looked at before it was copied."""
    return Arrived(found.st_size, found.st_mtime_ns, found.st_ino, mark)


class Ledger(dict[str, Arrived]):
    """Name -> what arrived. One that cannot be read is empty: then everything is copied again.

    Args:
        folder: the run's, of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(_read(folder / NAME))

    def save(self) -> None:
        """Write it."""
        text = json.dumps({name: asdict(entry) for name, entry in self.items()})
        write_atomic(self.folder / NAME, text.encode())

    def holds(self, name: str) -> bool:
        """Whether the file of this name is there as it is on this disk."""
        path = self.folder / name
        return name in self and path.is_file() and self[name].is_of(path.stat())

    def ranking(self) -> list[str] | None:
        """The best checkpoints that are to be kept, the best one first; None: nobody has said."""
        found = read_json(self.folder / RANKING)
        if not isinstance(found, dict) or not all(BEST.fullmatch(_in(name)) for name in found):
            return None
        return [_in(name) for name in found]


def _in(name: str) -> str:
    return f"checkpoints/{name}"


def is_uploaded(folder: Path) -> bool:
    """Whether a run's folder of this machine is copied to another place."""
    return (folder / NAME).is_file()


def read_json(path: Path) -> Any:
    """What a small file says; None for none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _read(path: Path) -> dict[str, Arrived]:
    found = read_json(path)
    if not isinstance(found, dict):
        return {}
    known: dict[str, Arrived] = {}
    for name, entry in found.items():
        numbers = ("bytes", "mtime_ns", "inode")
        whole = isinstance(entry, dict) and all(type(entry.get(n)) is int for n in numbers)
        if whole and isinstance(entry.get("mark"), str):
            known[name] = Arrived(**{n: entry[n] for n in numbers}, mark=entry["mark"])
    return known
