"""A set of shards, opened for random access.

    index.json     what the set is: image size and format, origin, the images that could not be
                   taken; of each shard its name, samples, bytes and sha256
    offsets.npy    int64 [n,4]: of each sample the offset and size of its image and of its json in
                   their tar, in the order of the shards
    000000.tar     webdataset: `{key}.png|jpg|webp` and `{key}.json` of each sample

A paired set also has `{key}.source.png|jpg|webp`, and offsets.npy two more columns for it.

webdataset itself needs the tars only. The index makes an exact order, an exact resume and a check
for truncation possible.
"""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ganinv.core.errors import DataError, explain, named, reason_of, shown
from ganinv.core.network import MALFORMED
from ganinv.core.safe.io import sha256_file
from ganinv.core.safe.json_text import parse_json
from ganinv.dataset.codec import Extension, Mode, decode
from ganinv.dataset.index_file import (
    FORMAT,
    MAX_INDEX,
    VERSION,
    ShardEntry,
    SourceFormat,
    parse_index,
    read_offsets,
    source_format,
)
from ganinv.dataset.place import INDEX, check_place
from ganinv.dataset.remote import RemoteShards, Unreachable

HEADER = 512  # a tar member's header, bytes, right before its data
MAX_MEMBER = 256 << 20  # bytes of an image in a tar
MAX_JSON = 1 << 20  # bytes of a sample's json


@dataclass(frozen=True)
class Index:
    """What `index.json` and `offsets.npy` say.

    Attributes:
        folder: of the set.
        size: (H, W) of every image, px.
        extension: of the image files.
        names: the tars.
        starts: int64 [shards + 1]; shard s holds samples starts[s] ... starts[s+1] - 1.
        offsets: int64 [n,4] or, of a paired set, [n,6].
        raw: the whole of index.json.
        source: what is stored beside each image, None for nothing.
        far: where the tars come from when they are not in `folder` yet, None for a local set.
    """

    folder: Path
    size: tuple[int, int]
    extension: Extension
    names: tuple[str, ...]
    starts: np.ndarray
    offsets: np.ndarray
    raw: dict[str, Any]
    source: SourceFormat | None = None
    far: RemoteShards | None = None

    def __len__(self) -> int:
        """Samples in the set."""
        return int(self.starts[-1])

    @property
    def command(self) -> str:
        """The command that wrote the set, as far as it says so."""
        origin = self.raw.get("origin")
        command = origin.get("command") if isinstance(origin, dict) else None
        printable = isinstance(command, str) and command.isprintable() and len(command) < 2000
        return str(command) if printable else "its command"

    def entry(self, shard: int) -> ShardEntry:
        """What the index says of a tar."""
        found = self.raw["shards"][shard]
        return {key: found[key] for key in ("name", "samples", "bytes", "sha256")}  # type: ignore[return-value]

    def shard_of(self, sample: int) -> int:
        """The shard that holds a sample."""
        return int(np.searchsorted(self.starts, sample, side="right")) - 1

    def name_of(self, sample: int) -> str:
        """How a sample is called in messages when its key cannot be read."""
        shard = self.shard_of(sample)
        return f"{self.names[shard]} sample {sample - int(self.starts[shard])}"


def read_index(folder: str | Path) -> Index:
    """Open a set of shards; says nothing yet about its tars (see `check_files`).

    Raises:
        DataError: no folder, no index, or an index that is damaged or of another version.
    """
    folder = Path(folder).expanduser()
    check_place(folder)
    path = folder / INDEX
    try:
        with open(path, "rb") as file:
            raw = parse_index(file.read(MAX_INDEX + 1))
        return _parse(folder, raw)
    except (*MALFORMED, MemoryError, OSError) as error:
        raise DataError(
            explain(
                f"{path} cannot be used ({reason_of(error)})",
                f"an index of format {FORMAT}, version {VERSION}",
                "copy the set again, or write it again with ganinv shard",
            )
        ) from error


def _parse(folder: Path, raw: dict[str, Any]) -> Index:
    image, shards = raw["image"], raw["shards"]
    counts = np.array([shard["samples"] for shard in shards], dtype=np.int64)
    source = source_format(raw.get("source"))
    samples, columns = int(counts.sum()), 6 if source else 4
    offsets = read_offsets(folder / "offsets.npy", samples, columns)
    if len(offsets) == 0:
        raise ValueError("no samples")
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Index(
        folder=folder,
        size=(image["height"], image["width"]),
        extension=image["format"],
        names=tuple(shard["name"] for shard in shards),
        starts=starts,
        offsets=offsets,
        raw=raw,
        source=source,
    )


def size_fault(index: Index, shard: int) -> str | None:
    """Whether a tar is missing or of another size than written; reads nothing of it."""
    entry = index.raw["shards"][shard]
    path = index.folder / entry["name"]
    if not path.is_file():
        return f"missing ({entry['samples']} samples)"
    if (size := path.stat().st_size) != entry["bytes"]:
        word = "truncated" if size < entry["bytes"] else "longer than written"
        return f"{word}: {size:,} bytes instead of {entry['bytes']:,}"
    return None


def check_files(index: Index) -> None:
    """Refuse a set with missing or truncated tars, by their sizes alone; tars from afar are checked
    when they come.

    Raises:
        DataError: naming them.
    """
    if index.far is not None:
        return
    found = ((name, size_fault(index, shard)) for shard, name in enumerate(index.names))
    faults = [f"{name}: {fault}" for name, fault in found if fault]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError(
            explain(
                f"in {index.folder}, {'; '.join(faults[:5])}{more}",
                f"the {len(index.names)} tars of its index as they were written",
                f"copy them again; `ganinv verify {index.folder}` checks all",
            )
        )


class BadSample(ValueError):
    """A sample that cannot be read; the message says which and why."""


class Reader:
    """Reads samples by number. Keeps the `open_files` last used tars open, in each process.

    Args:
        index: the set.
        open_files: limit of open files.
    """

    def __init__(self, index: Index, open_files: int) -> None:
        self.index, self.open_files = index, open_files
        self._files: OrderedDict[int, int] = OrderedDict()
        self._lost: dict[int, str] = {}  # tars that could not be had from afar

    def __getstate__(self) -> dict[str, Any]:
        """File descriptors do not travel to other processes."""
        return {**self.__dict__, "_files": OrderedDict()}

    def image(self, sample: int) -> tuple[str, Tensor]:
        """Key and pixels, uint8 [3,H,W], of a sample.

        Raises:
            BadSample: cut short, damaged, or not what the index says.
        """
        return self._pixels(sample, 0, self.index.extension, "RGB")

    def source(self, sample: int) -> Tensor:
        """What a paired set stores beside the image: uint8 [3,H,W], or [1,H,W] of grey and labels.

        Raises:
            BadSample: as `image`.
        """
        assert self.index.source is not None, f"{self.index.folder} is no paired set"
        mode: Mode = "RGB" if self.index.source.kind == "rgb" else "L"
        return self._pixels(sample, 4, self.index.source.extension, mode)[1]

    def _pixels(
        self, sample: int, column: int, extension: Extension, mode: Mode
    ) -> tuple[str, Tensor]:
        member = ""
        try:
            member, data = self._member(sample, column)
            pixels = decode(data, extension, mode, self.index.size)
            if tuple(pixels.shape[1:]) != self.index.size:
                raise ValueError(f"{tuple(pixels.shape[1:])} px instead of {self.index.size}")
        except Exception as error:  # a broken image ends in any of a dozen kinds; none stops us
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            within = f" ({named(member)})" if member else ""
            raise BadSample(f"{self.index.name_of(sample)}{within}: {reason[:200]}") from error
        return member.split(".", 1)[0], pixels

    def json(self, sample: int) -> dict[str, Any]:
        """The json of a sample.

        Raises:
            BadSample: cut short or damaged.
        """
        try:
            data = self._member(sample, 2)[1]
            found = parse_json(data, MAX_JSON)
            if not isinstance(found, dict):
                raise ValueError(f"{shown(found)} instead of a record")
        except (*MALFORMED, OSError) as error:
            raise BadSample(f"{self.index.name_of(sample)}, json: {reason_of(error)}") from error
        return found

    def _member(self, sample: int, column: int) -> tuple[str, bytes]:
        """Name and bytes of a member; one read takes its tar header too, which proves the place."""
        offset, size = (int(x) for x in self.index.offsets[sample, column : column + 2])
        if size > MAX_MEMBER:
            raise ValueError(f"{size:,} bytes, more than {MAX_MEMBER:,}")
        data = os.pread(self._file(self.index.shard_of(sample)), HEADER + size, offset - HEADER)
        if len(data) != HEADER + size:
            raise ValueError(f"the tar ends before it ({len(data)} of {HEADER + size} bytes)")
        return _name_in(data[:HEADER], size), data[HEADER:]

    def _file(self, shard: int) -> int:
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        while len(self._files) >= self.open_files:
            os.close(self._files.popitem(last=False)[1])
        file = self._open(shard)
        self._files[shard] = file
        return file

    def _open(self, shard: int) -> int:
        far = self.index.far
        if far is None:
            return os.open(self.index.folder / self.index.names[shard], os.O_RDONLY)
        if shard in self._lost:
            raise Unreachable(self._lost[shard])
        try:
            return far.open(self.index.entry(shard))
        except Unreachable as error:
            self._lost[shard] = str(error)  # the tries were many; not again for every image of it
            raise

    def close(self) -> None:
        """Close the tars."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        """The last user is gone."""
        self.close()


def _name_in(header: bytes, size: int) -> str:
    """The member's name in a tar's header.

    Raises:
        ValueError: something else stands there, or the header of a file of another size.
    """
    check, stated = header[148:156], header[124:136]
    if (  # as ganinv writes them; read in a quarter of the time that tarfile takes
        header[257:263] == b"ustar\0"
        and header[345] == 0
        and stated == b"%011o\0" % size
        and check == b"%06o\0 " % (sum(header) - sum(check) + 8 * 32)
    ):
        return header[:100].partition(b"\0")[0].decode()
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except tarfile.TarError as error:
        raise ValueError(f"the tar has something else at its place ({error})") from error
    if found.size != size:
        raise ValueError(f"the tar has something else at its place ({named(found.name)})")
    return found.name


def shard_faults(folder: Path, shard: int, decode_images: bool) -> list[str]:
    """What is wrong with one tar, one sentence each.

    Args:
        folder: of the set.
        shard: number of the tar.
        decode_images: also decode every image (the sha256 finds any changed byte since the set was
            written; decoding finds what was already bad, and names what is lost).
    """
    index = read_index(folder)
    entry = index.raw["shards"][shard]
    path = folder / entry["name"]
    faults = []
    if fault := size_fault(index, shard):
        faults.append(f"{path}: {fault}")
    if not path.is_file():
        return faults
    if not faults and sha256_file(path) != entry["sha256"]:
        faults.append(f"{path}: its bytes changed since it was written (sha256)")
    if decode_images:
        reader = Reader(index, open_files=1)
        for sample in range(int(index.starts[shard]), int(index.starts[shard + 1])):
            for read in (reader.image, reader.json, *([reader.source] if index.source else [])):
                try:
                    read(sample)
                except BadSample as error:
                    faults.append(f"{index.folder}/{error}")
        reader.close()
    return faults
