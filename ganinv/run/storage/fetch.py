"""A file at an address, on this machine: for whatever opens a checkpoint or a bundle.

It is kept in `$GANINV_CACHE/fetched/<sha256 of address and content's mark>/<name>`, so that one
that was written again is fetched again. Its content is as untrusted as any file's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing, explain
from ganinv.run.storage.base import NotThere, StorageFault, is_address, patiently
from ganinv.run.storage.open import open_storage


def cache_folder(name: str) -> Path:
    """`$GANINV_CACHE/<name>`."""
    return Path(os.environ.get("GANINV_CACHE", "~/.cache/ganinv")).expanduser() / name


def fetched(address: str) -> Path:
    """The file, fetched unless this very content is there already; processes wait for one another.

    Raises:
        ConfigError: no address of a file, or no package for it.
        WeightsMissing: no such file.
        WeightsError: it cannot be had.
    """
    folder, _, name = address.rpartition("/")
    if not name or folder.endswith("/"):
        raise ConfigError(explain(address, "a file's address: s3://bucket/NAME", "correct it"))
    storage = open_storage(folder, "the address")
    try:
        entry = patiently(lambda: storage.entry(name), address)
        digest = hashlib.sha256(f"{address}\n{entry.bytes}\n{entry.mark}".encode()).hexdigest()
        path = cache_folder("fetched") / digest[:16] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.parent / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file() or path.stat().st_size != entry.bytes:
                check_room(path, entry.bytes, address)
                patiently(lambda: storage.download(name, path), address)
        return path
    except NotThere as error:
        raise WeightsMissing(
            explain(f"no file {address} ({error})", "a checkpoint, a bundle or a generator",
                    "check the address")
        ) from error  # fmt: skip
    except StorageFault as error:
        raise WeightsError(
            explain(f"{address} cannot be fetched: {error}", "a store that can be read",
                    "check the address, the keys and the network")
        ) from error  # fmt: skip


def local(place: str | os.PathLike[str]) -> Path:
    """The file of a path or an address, on this machine. Errors as `fetched`."""
    return fetched(str(place)) if is_address(place) else Path(place)


def check_room(path: Path, size: int, address: str) -> None:
    """Refuse what does not fit on the disk.

    Raises:
        WeightsError: with both sizes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise WeightsError(
            explain(
                f"{address} has {size / 2**20:,.1f} MiB",
                f"at most the {free / 2**20:,.1f} MiB that are free in {path.parent}",
                "make room, or take another disk: scratch=..., GANINV_CACHE",
            )
        )


def check_there(path: str | os.PathLike[str]) -> None:
    """Refuse a file that is not there; one at an address is asked for when it is opened.

    Raises:
        WeightsMissing: no such file.
    """
    if not is_address(path) and not Path(path).is_file():
        raise WeightsMissing(
            explain(f"no file {path}", "a checkpoint, a bundle or a generator", "check the path")
        )
