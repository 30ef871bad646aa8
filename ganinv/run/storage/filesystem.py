"""Any place that fsspec knows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ganinv.core.errors import reason_of
from ganinv.run.storage.base import (
    Entry,
    NotThere,
    Storage,
    StorageFault,
    StorageRefusal,
    check_number,
)

IN_PLACE = ("file", "local", "memory", "sftp", "ssh", "smb", "ftp", "hdfs", "webhdfs", "arrow_hdfs")
MARKS = ("etag", "ETag", "md5Hash", "generation")
TIMES = ("last_modified", "LastModified", "mtime", "created")


@contextmanager
def _faults() -> Iterator[None]:
    """What its packages raise, told apart as far as they do it themselves."""
    try:
        yield
    except StorageFault:
        raise
    except FileNotFoundError as error:
        raise NotThere(reason_of(error)) from error
    except (PermissionError, NotADirectoryError, NotImplementedError) as error:
        raise StorageRefusal(reason_of(error)) from error
    except Exception as error:  # each package has its own
        final = "Credential" in type(error).__name__ or "Auth" in type(error).__name__
        raise (StorageRefusal if final else StorageFault)(reason_of(error)) from error


class FsspecStorage(Storage):
    """A folder of one of fsspec's file systems.

    Args:
        address: with its scheme.
        files: the file system.
    """

    def __init__(self, address: str, files: Any) -> None:
        self.address, self._fs = address.rstrip("/"), files
        scheme = address.partition("://")[0].lower()
        self._in_place = scheme in IN_PLACE
        self._folders = self._in_place and scheme != "memory"
        self._root = str(files._strip_protocol(self.address)).rstrip("/")

    def inside(self, name: str) -> FsspecStorage:
        """A folder in it."""
        return FsspecStorage(f"{self.address}/{name}", self._fs)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def files(self, under: str = "") -> dict[str, Entry]:
        """All below, as the file system finds them."""
        with _faults():
            self._fs.invalidate_cache()
            try:
                listed = self._fs.find(self._path(under).rstrip("/"), detail=True)
            except FileNotFoundError:
                listed = {}
            start = len(self._path(""))
            found = {path[start:]: _entry_of(info) for path, info in listed.items()}
        check_number(found, self.address)
        return {name: entry for name, entry in found.items() if not _is_hidden(name)}

    def entry(self, name: str) -> Entry:
        """What the file system knows of it."""
        with _faults():
            self._fs.invalidate_cache()
            return _entry_of(self._fs.info(self._path(name)))

    def read(self, name: str, most: int) -> bytes:
        """Its first bytes."""
        with _faults(), self._fs.open(self._path(name), "rb") as file:
            content: bytes = file.read(most + 1)
            return content

    def write(self, name: str, content: bytes) -> None:
        """Written beside it, then named."""
        self._whole(name, lambda path: self._fs.pipe_file(path, content))

    def upload(self, path: Path, name: str) -> None:
        """The same."""
        self._whole(name, lambda place: self._fs.put_file(str(path), place))

    def copy(self, name: str, other: str) -> None:
        """The same."""
        self._whole(other, lambda place: self._fs.cp_file(self._path(name), place))

    def _whole(self, name: str, write: Callable[[str], object]) -> None:
        with _faults():
            path = self._path(name)
            if not self._in_place:  # an object store's own way
                write(path)
                return
            folder, _, last = path.rpartition("/")
            if self._folders:
                self._fs.makedirs(folder, exist_ok=True)
            partial = f"{folder}/.{last}.{secrets.token_hex(4)}.partial"
            try:
                write(partial)
                self._fs.mv(partial, path)
            except BaseException:
                with suppress(Exception):
                    self._fs.rm_file(partial)
                raise

    def remove(self, name: str) -> None:
        """One file."""
        with suppress(NotThere), _faults():
            self._fs.rm_file(self._path(name))

    def _fetch(self, name: str, path: Path) -> None:
        with _faults():
            self._fs.get_file(self._path(name), str(path))


def _entry_of(info: dict[str, Any]) -> Entry:
    """A store's own mark of the content, or else when it was written; listings and questions about
    one file give times in different types."""
    known = {key: info[key] for key in MARKS if info.get(key)}
    if not known:
        times = {key: info[key] for key in TIMES if info.get(key)}
        known = {k: v.timestamp() if isinstance(v, datetime) else v for k, v in times.items()}
    text = repr((info.get("size"), sorted(known.items())))
    return Entry(int(info.get("size") or 0), sha256(text.encode()).hexdigest()[:16])


def _is_hidden(name: str) -> bool:
    """Half of a file, of a process that ended while it wrote."""
    return name.rpartition("/")[2].startswith(".")
