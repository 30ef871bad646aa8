"""Disks that are full, read-only or ill, in one sentence."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ganinv.core.errors import ConfigError, RunError, explain

ILL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM}


def free_space(path: Path) -> str:
    """`12.3 MiB`, where `path` is to lie."""
    try:
        return f"{shutil.disk_usage(_nearest(path)).free / 2**20:.1f} MiB"
    except OSError:
        return "an unknown number of bytes"


def _nearest(path: Path) -> Path:
    """The nearest folder above `path`, or itself, that exists."""
    found = path.absolute()
    while not os.path.lexists(found):
        found = found.parent
    return found


def check_writable(folder: Path, what: str, todo: str) -> None:
    """Try the nearest folder that exists, before minutes are spent. What a user may do there only
    the file system knows: root may write nothing to many a shared disk.

    Args:
        folder: that will be made or written to.
        what: it is, for the refusal.
        todo: what a user can do.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        parent = _nearest(folder)
        handle, name = tempfile.mkstemp(prefix=".ganinv-", dir=parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(b"\0" * 4096)  # a full disk still takes names
                file.flush()
                os.fsync(file.fileno())
        finally:
            os.unlink(name)
    except OSError as error:
        given = f"{what} {folder} cannot be written: {error.filename or folder}: {error.strerror}"
        raise ConfigError(explain(given, "a place that takes files", todo)) from error


@contextmanager
def disk_errors(folder: Path, todo: str) -> Iterator[None]:
    """Turns what a disk did to a command into a sentence.

    Args:
        folder: where the command writes, for errors that name no file.
        todo: what a user can do, and what is kept.

    Raises:
        RunError: naming the file, the reason, and the room that is left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in ILL:
            raise
        where = Path(os.fsdecode(error.filename)) if error.filename else folder
        given = f"{where}: {error.strerror}; {free_space(where)} free there"
        raise RunError(explain(given, "a disk that can be read and written", todo)) from error
