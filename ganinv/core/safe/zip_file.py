"""Zip files, which torch's and numpy's files are, before anything in them is read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from ganinv.core.safe.unpickle import Unreadable

MAX_DIRECTORY = 4 << 20  # bytes of a zip file's; a checkpoint of 10,000 tensors has 1 MB


class _Directory:
    """A zip file while its directory is read, which `zipfile` does whole, and makes an object of
    each entry: it may not be larger than a checkpoint's."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.most = file, MAX_DIRECTORY
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if size > self.most:
            raise Unreadable(f"a zip file with a directory of {size:,} bytes")
        return self.file.read(size)


@contextmanager
def open_zip(file: IO[bytes], size: int, *, compressed: bool = False) -> Iterator[zipfile.ZipFile]:
    """A zip file of `size` bytes, of nothing but plain entries, or of compressed ones, whose length
    is then the caller's to bound.

    Raises:
        Unreadable: compressed, overlapping, repeated or too many entries.
        zipfile.BadZipFile, NotImplementedError: damaged.
    """
    bounded = _Directory(file)
    with zipfile.ZipFile(cast(IO[bytes], bounded)) as archive:
        bounded.most = size
        if not compressed:
            _check_stored(archive.infolist(), size)
        yield archive


def _check_stored(entries: list[zipfile.ZipInfo], size: int) -> None:
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Unreadable("a compressed zip file, which torch.save never writes")
    if len({entry.header_offset for entry in entries}) != len(entries):
        raise Unreadable("a zip file whose entries overlap")
    if sum(entry.file_size for entry in entries) > size:
        raise Unreadable("a zip file whose entries are larger than the file")
    if len({entry.filename for entry in entries}) != len(entries):
        raise Unreadable("a zip file with two entries of one name")
