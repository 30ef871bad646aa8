"""What the tests of runs that are kept elsewhere share."""

from __future__ import annotations

from pathlib import Path

import fsspec
import torch

from ganinv.run import mirror
from ganinv.run.storage import base
from ganinv.run.storage.base import Storage, StorageFault
from ganinv.run.storage.open import open_storage


def in_no_time(monkeypatch, patience: float = 0.3, every: float = 0.02) -> None:
    """No waiting between tries, `every` seconds between rounds; an empty memory://."""
    monkeypatch.setattr(base, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(mirror, "SETTLE", 0.0)
    monkeypatch.setattr(mirror, "EVERY", every)
    monkeypatch.setattr(mirror, "BEAT", every)
    monkeypatch.setattr(mirror, "PATIENCE", patience)
    fsspec.filesystem("memory").store.clear()


def write_checkpoint(path: Path, number: int) -> bytes:
    """A small sound one that differs from others; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"ganinv": {}, "number": torch.full((64,), float(number))}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    return path.read_bytes()


class Faulty(Storage):
    """A place of which some operations fail.

    Args:
        address: of the place.
        faults: operation -> how many of its next calls fail.
    """

    def __init__(self, address: str, faults: dict[str, int] | None = None) -> None:
        self.address, self.faults = address, {} if faults is None else faults
        self.inner = open_storage(address, "runs")
        self.calls: list[tuple[str, ...]] = []

    def _do(self, what: str, *given):
        self.calls.append((what, *(str(g) for g in given if not isinstance(g, bytes))))
        if self.faults.get(what, 0) > 0:
            self.faults[what] -= 1
            raise StorageFault(f"{what}: the store answers 503")
        return getattr(self.inner, what)(*given)

    def inside(self, name):
        return Faulty(f"{self.address}/{name}", self.faults)

    def files(self, under=""):
        return self._do("files", under)

    def entry(self, name):
        return self._do("entry", name)

    def read(self, name, most):
        return self._do("read", name, most)

    def write(self, name, content):
        return self._do("write", name, content)

    def upload(self, path, name):
        return self._do("upload", path, name)

    def copy(self, name, other):
        return self._do("copy", name, other)

    def remove(self, name):
        return self._do("remove", name)

    def _fetch(self, name, path):
        return self._do("_fetch", name, path)
