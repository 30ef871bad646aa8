"""Checkpoints as files: written whole or not at all, checked, found again."""

from __future__ import annotations

import errno
import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

from ganinv.core.command import entry
from ganinv.core.errors import RunError, WeightsError, WeightsMissing, explain, named
from ganinv.core.safe.io import load_tensors, tensors_of, write_atomic
from ganinv.core.safe.unpickle import Unreadable
from ganinv.core.safe.zip_file import open_zip
from ganinv.run.disk import free_space

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
PIECE = 64 << 20  # bytes that are read, or sent to the other ranks, at a time


def write_checkpoint(path: Path, content: memoryview) -> None:
    """Temporary name, sync, keep the `last.ckpt` before as `previous.ckpt`, rename.

    Raises:
        RunError: it could not be written; says how much room there is.
    """
    try:
        if path.name == LAST and path.is_file():
            link = path.with_name(f".{PREVIOUS}")
            link.unlink(missing_ok=True)
            link.hardlink_to(path)
            link.replace(path.with_name(PREVIOUS))
            link.unlink(missing_ok=True)  # renaming a file onto its own link does nothing
        write_atomic(path, content)
    except OSError as error:
        free = free_space(path)
        raise RunError(
            explain(
                f"the checkpoint {path} ({len(content) / 2**20:.1f} MiB) could not be written: "
                f"{error.strerror or error}; {free} free there",
                "a disk that takes it; the checkpoints written before are untouched",
                f"make room or make it writable, then {entry('train')} <same options> resume=auto",
            )
        ) from error


class Held:
    """A checkpoint in memory: rank 0 reads it once from the disk, compares it with its checksums
    and hands it to whoever loads it, on every rank.

    Args:
        path: where it is.
        content: its bytes.
    """

    def __init__(self, path: Path, content: bytearray) -> None:
        self.path, self.content = path, content

    def outline(self) -> dict[str, Any]:
        """What it holds, its tensors on torch's meta device: names, shapes, plain values.

        Raises:
            WeightsError: as `read_checkpoint`.
        """
        return _of_ganinv(tensors_of(self._file(), self.path, outline=True), self.path)

    def read(self) -> dict[str, Any]:
        """What it holds, on the CPU. Errors as above."""
        return _of_ganinv(tensors_of(self._file(), self.path), self.path)

    def _file(self) -> IO[bytes]:
        return cast(IO[bytes], InMemory(self.content))


class InMemory(io.RawIOBase):
    """Bytes that are read as a file is, without a copy of them (`io.BytesIO` makes one)."""

    def __init__(self, content: bytearray) -> None:
        self._content, self._at = memoryview(content), 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere, as far behind the end as asked."""
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, len(self._content))
        if at < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = at
        return at

    def readinto(self, room: Any) -> int:
        """The next bytes; 0 at the end."""
        piece = self._content[self._at : self._at + len(room)]
        room[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def held(path: Path) -> tuple[Held | None, str | None]:
    """A checkpoint read into memory, or what is wrong with its bytes.

    A checkpoint is a zip file with a checksum of every tensor; its directory is looked at first.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            with open_zip(file, size):
                pass
            content = bytearray(size)
            room, done = memoryview(content), 0
            file.seek(0)
            while read := file.readinto(room[done : done + PIECE]):
                done += read
        with open_zip(cast(IO[bytes], InMemory(content)), size) as archive:
            bad = archive.testzip()
    except Unreadable as error:
        return None, str(error)
    except MemoryError:
        return None, f"{size:,} bytes are more than this machine's memory has room for"
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, zlib.error) as error:
        return None, f"cut short: {path.stat().st_size:,} bytes, {error}"
    if bad is not None:
        return None, f"the checksum of {named(bad)} does not fit"
    return Held(path, content), None


def newest_sound(folder: Path) -> tuple[Held | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint of a run, in memory, and the newer ones that are damaged, with
    the reason."""
    best = sorted(folder.glob("best-*.ckpt"), reverse=True)
    damaged: list[tuple[Path, str]] = []
    for path in [folder / LAST, folder / PREVIOUS, *best]:
        if not path.is_file():
            continue
        found, fault = held(path)
        if found is not None:
            return found, damaged
        damaged.append((path, str(fault)))
    return None, damaged


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's bytes, None when they are as they were written."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file, open_zip(file, size) as archive:
            bad = archive.testzip()
    except Unreadable as error:
        return str(error)
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, zlib.error) as error:
        return f"cut short: {size:,} bytes, {error}"
    return None if bad is None else f"the checksum of {named(bad)} does not fit"


def check_undamaged(path: Path) -> None:
    """Compare every byte of a checkpoint with its checksums; torch's reader does not.

    Raises:
        WeightsError: they differ.
    """
    if (fault := damage(path)) is not None:
        raise _damaged(path, fault)


def hold(path: Path) -> Held:
    """A checkpoint read into memory.

    Raises:
        WeightsError: it is damaged.
    """
    found, fault = held(path)
    if found is None:
        raise _damaged(path, str(fault))
    return found


def _damaged(path: Path, fault: str) -> WeightsError:
    return WeightsError(
        explain(
            f"{path} is damaged: {fault}",
            "the file as it was written",
            "take another checkpoint of the run, such as previous.ckpt, or copy it again",
        )
    )


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A ganinv training checkpoint as a dict, on the CPU.

    Raises:
        WeightsMissing: no such file.
        WeightsError: unreadable, damaged, or not written by ganinv.
    """
    if not Path(path).is_file():
        raise WeightsMissing(
            f"no checkpoint at {path}; expected a .ckpt file that train.py wrote. To fix: pass "
            "checkpoint=runs/<run>/checkpoints/best.ckpt"
        )
    checkpoint = load_tensors(path)
    check_undamaged(Path(path))
    return _of_ganinv(checkpoint, path)


def _of_ganinv(checkpoint: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    if not isinstance(checkpoint, dict) or "ganinv" not in checkpoint:
        raise WeightsError(
            f"{path} is not a ganinv checkpoint (no 'ganinv' entry); expected a .ckpt file that "
            "train.py wrote"
        )
    return checkpoint
