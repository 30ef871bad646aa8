"""Where images come from before they are shards: a folder, a zip file, an LSUN database.

A source lists its images (name and a mark that changes with the content, as far as it can be had
without reading) and reads one by name.
"""

from __future__ import annotations

import importlib.util
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ganinv.core.errors import DataError, explain, reason_of
from ganinv.core.interface import SourceKind
from ganinv.dataset import lmdb_process
from ganinv.dataset.codec import Extension, Fit, encode, load, load_labels, resize
from ganinv.dataset.shard import Failure, Sample

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
MAX_BYTES = lmdb_process.MAX_BYTES  # of one image file; a zip file may claim anything


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in Path(name).parts)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not _is_hidden(name)


def _others(names: Iterable[str]) -> list[str]:
    """Files that are neither images by their suffix nor hidden, sorted."""
    return sorted(name for name in names if not _is_image(name) and not _is_hidden(name))


def _closed(path: Path, error: Exception) -> DataError:
    return DataError(
        explain(f"{path} cannot be read: {reason_of(error)}", "a folder, zip file or LMDB that is "
                "whole and may be read", "check its permissions, or copy it again")
    )  # fmt: skip


class Folder:
    """Images of a folder and of its subfolders."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def items(self) -> list[tuple[str, str]]:
        """(relative path, bytes) of each image, sorted."""
        try:
            named = [(path.relative_to(self.path).as_posix(), path) for path in self._files()]
            return sorted((n, str(path.stat().st_size)) for n, path in named if _is_image(n))
        except OSError as error:
            raise _closed(self.path, error) from error

    def left_out(self) -> list[str]:
        """Relative paths of the files that are no images by their names."""
        return _others(path.relative_to(self.path).as_posix() for path in self._files())

    def _files(self) -> Iterator[Path]:
        return (path for path in self.path.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        path = self.path / name
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()


class Zip:
    """Images inside a zip file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        """An open file does not travel."""
        return {"path": self.path}

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def items(self) -> list[tuple[str, str]]:
        """(name, checksum) of each image, sorted."""
        try:
            entries = self._file.infolist()
        except (OSError, ValueError, RuntimeError, NotImplementedError, LookupError,
                struct.error, zipfile.BadZipFile) as error:  # fmt: skip
            raise _closed(self.path, error) from error
        found = (i for i in entries if _is_image(i.filename) and not i.is_dir())
        return sorted((i.filename, f"{i.CRC:08x}") for i in found)

    def left_out(self) -> list[str]:
        """Names of the files that are no images by their names."""
        return _others(i.filename for i in self._file.infolist() if not i.is_dir())

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        with self._file.open(name) as file:  # a zip file may claim any size
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        return data


class Lmdb:
    """An LSUN database: every value is an image file. Names are the keys, byte for byte. Read in a
    process of its own (`lmdb_process.py`): a damaged one ends that.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that asks it; a forked one starts its own

    def __getstate__(self) -> dict[str, Any]:
        """A process does not travel."""
        return {"path": self.path, "_process": None, "_owner": 0}

    def __del__(self) -> None:
        """The process ends with its input."""
        self._close()

    def _close(self) -> None:
        process, self._process = self._process, None
        if self._owner != os.getpid():
            return
        if process is not None and process.stdin is not None and process.stdout is not None:
            with suppress(OSError):
                process.stdin.close()
            process.stdout.close()
            process.kill()
            process.wait()

    def _ask(self, question: str) -> None:
        if importlib.util.find_spec("lmdb") is None:
            raise DataError(
                explain(f"{self.path}, an LMDB, without the package lmdb", "it",
                        'pip install "ganinv[lmdb]"')
            )  # fmt: skip
        if self._process is None or self._owner != os.getpid():
            self._owner = os.getpid()
            script = Path(__file__).with_name("lmdb_process.py")
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(self.path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(question.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._damaged("the reading process ended") from None

    def _answer(self) -> bytes | None:
        """One answer; None: the end, or nothing there."""
        assert self._process is not None and self._process.stdout is not None
        length = int.from_bytes(head := self._process.stdout.read(8), "little", signed=True)
        if len(head) == 8 and length == lmdb_process.FAULT:
            raise self._damaged((self._answer() or b"").decode(errors="replace"))
        if len(head) == 8 and length == lmdb_process.END:
            return None
        if len(head) == 8 and length == lmdb_process.TOO_LARGE:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        data = self._process.stdout.read(length) if len(head) == 8 else b""
        if len(head) < 8 or len(data) < length:
            raise self._damaged("the reading process ended")
        return data

    def _damaged(self, why: str) -> DataError:
        self._close()
        return DataError(
            explain(f"{self.path} cannot be read ({why})", "a whole LMDB", "copy it again")
        )

    def items(self) -> list[tuple[str, str]]:
        """(key, nothing) of each entry, in the order of the database.

        Raises:
            DataError: no such database, or a damaged one; or the package lmdb is not installed.
        """
        self._ask("")
        found = []
        while (key := self._answer()) is not None:
            found.append((key.decode("latin-1"), ""))
        return found

    def left_out(self) -> list[str]:
        """Nothing: every entry is an image."""
        return []

    def read(self, name: str) -> bytes:
        """The bytes of one image file.

        Raises:
            DataError: a damaged database.
            ValueError: nothing under this name.
        """
        self._ask(name.encode("latin-1").hex())
        if (found := self._answer()) is None:
            raise ValueError("nothing under this key")
        return found


class Source(Protocol):
    """Images by name. A source travels to other processes; each opens its own files."""

    def items(self) -> list[tuple[str, str]]:
        """(name, mark) of each image; the mark changes with the content, as far as it is known."""
        ...

    def left_out(self) -> list[str]:
        """Names of the files that are no images by their names."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        ...


def open_source(path: Path) -> Source:
    """A source by what lies at a path.

    Raises:
        DataError: nothing there, or neither a folder, a zip file nor an LMDB.
    """
    expected = "a folder of images, a zip file of images, or an LSUN LMDB folder (data.mdb)"
    try:
        if not path.exists():
            raise DataError(explain(f"no file or folder {path}", expected, "check the path"))
        if path.is_dir():
            return Lmdb(path) if (path / "data.mdb").is_file() else Folder(path)
        if not path.is_file():
            raise DataError(explain(f"{path} is no file", expected, "check the path"))
        with open(path, "rb"):
            pass
    except OSError as error:
        raise _closed(path, error) from error
    if zipfile.is_zipfile(path):
        return Zip(path)
    raise DataError(explain(f"{path} is not a zip file", expected, "unpack it and give its folder"))


def pairs_of(names: list[str], sources: list[str]) -> dict[str, str]:
    """Target's name -> source's name: the same path, whatever the suffix.

    Raises:
        DataError: a target without a source, or with two.
    """
    found: dict[str, list[str]] = {}
    for source in sources:
        found.setdefault(_stem(source), []).append(source)
    bad = [name for name in names if len(found.get(_stem(name), [])) != 1]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise DataError(
            explain(
                f"{', '.join(bad[:3])}{more} without one source of that name",
                "for each image one source of the same path, whatever the suffix",
                "rename the sources, or take the images out that have none",
            )
        )
    return {name: found[_stem(name)][0] for name in names}


def _stem(name: str) -> str:
    return re.sub(r"\.\w+$", "", name)


def keys_of(names: list[str]) -> list[str]:
    """A webdataset key for each name: the path without suffix in plain letters; numbered in front
    when that is not unique.
    """
    stems = [re.sub(r"[^A-Za-z0-9_-]+", "_", _stem(name)) for name in names]
    if max(map(len, stems)) <= 80 and max(Counter(stems).values()) == 1:
        return stems
    return [f"{i:08d}-{stem[-60:]}" for i, stem in enumerate(stems)]


@dataclass(frozen=True)
class Resized:
    """The `make` of a plan: images of a source, cropped or padded, resized once, encoded.

    Attributes:
        source: to read from.
        items: (name, key) of each image of the set.
        per_shard: images of a tar.
        size: (H, W), px.
        fit: see `codec.resize`.
        extension: of the files.
        quality: see `codec.encode`.
        beside: of a paired set, where the sources lie, their kind, and target's name -> source's.
    """

    source: Source
    items: list[tuple[str, str]]
    per_shard: int
    size: tuple[int, int]
    fit: Fit
    extension: Extension
    quality: int
    beside: tuple[Source, SourceKind, dict[str, str]] | None = None

    def __call__(self, number: int) -> Iterator[Sample | Failure]:
        """The samples of one shard."""
        for name, key in self.items[number * self.per_shard : (number + 1) * self.per_shard]:
            try:
                image = load(self.source.read(name))
                pixels: np.ndarray = resize(image, self.size, self.fit)
                data = encode(pixels, self.extension, self.quality)
                beside, label = self._beside(name)
            except Exception as error:  # a broken image ends in any of a dozen kinds; none stops us
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                if isinstance(error, DataError):  # not the image: its source is damaged
                    raise
                yield Failure(name, reason.replace(repr(self.source), "")[:200])
                continue
            record = {"source": name, "source_size": [image.height, image.width]}
            yield Sample(key, data, record, beside, label)

    def _beside(self, target: str) -> tuple[bytes | None, int]:
        """The file beside a target, and the highest label of a map of classes."""
        if self.beside is None:
            return None, -1
        source, kind, names = self.beside
        try:
            data = source.read(names[target])
            image = load_labels(data) if kind == "labels" else load(data)
        except Exception as error:
            raise ValueError(f"its source {names[target]}: {error}") from error
        if kind == "grey":
            image = image.convert("L")
        pixels = resize(image, self.size, self.fit, labels=kind == "labels")
        extension = self.extension if kind == "rgb" else "png"
        label = int(pixels.max()) if kind == "labels" else -1
        return encode(pixels, extension, self.quality), label
