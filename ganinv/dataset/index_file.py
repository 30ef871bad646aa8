"""index.json and offsets.npy of a set of shards as they lie on a disk or come from a server:
parsed, every value checked before it is used. See `index.py` for what they say.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, get_args

import numpy as np

from ganinv.core.errors import shown
from ganinv.core.interface import SourceKind
from ganinv.core.safe.json_text import parse_json
from ganinv.dataset.codec import EXTENSIONS, Extension

FORMAT = "ganinv-shards"
VERSION = 1
MAX_INDEX = 64 << 20  # bytes of index.json, which lists the images that could not be taken
MAX_SHARDS = 100_000
MAX_SAMPLES, MAX_TAR, MAX_SIDE = 1 << 32, 1 << 44, 8192  # of a tar; bytes of it; px


class ShardEntry(TypedDict):
    """A tar in the index."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SourceFormat:
    """What a paired set stores beside each image.

    Attributes:
        kind: rgb, grey or labels.
        extension: of its files.
        classes: of label maps, the highest label + 1; else 0.
    """

    kind: SourceKind
    extension: Extension
    classes: int


def parse_index(text: bytes) -> dict[str, Any]:
    """The content of an index.json, every value that is used later checked.

    Raises:
        ValueError: not such an index; says what is wrong.
    """
    raw = parse_json(text, MAX_INDEX)
    if not isinstance(raw, dict):
        raise ValueError(f"{shown(raw)} instead of an index")
    if raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise ValueError(f"format {shown(raw.get('format'))}, version {shown(raw.get('version'))}")
    image, shards = raw.get("image"), raw.get("shards")
    if not isinstance(image, dict) or not isinstance(shards, list) or not shards:
        raise ValueError("no image or no shards")
    if len(shards) > MAX_SHARDS:
        raise ValueError(f"{len(shards):,} shards, more than {MAX_SHARDS:,}")
    sides = [_number(image, side, MAX_SIDE) for side in ("height", "width")]
    if min(sides) < 1:
        raise ValueError(f"images of {sides[0]} x {sides[1]} px")
    _one_of(image, "format", EXTENSIONS)
    for entry in shards:
        if not isinstance(entry, dict):
            raise ValueError(f"{shown(entry)} instead of a shard")
        check_name(entry.get("name"))
        _number(entry, "samples", MAX_SAMPLES)
        _number(entry, "bytes", MAX_TAR)
        digest = entry.get("sha256")
        if type(digest) is not str or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{entry['name']} without a sha256")
    if len({entry["name"] for entry in shards}) != len(shards):
        raise ValueError("two shards of one name")
    if not isinstance(raw.get("failed", []), list):
        raise ValueError("failed that is no list")
    return raw


def check_name(name: Any) -> None:
    """A tar's name is a plain one: no folder, nothing hidden, nothing that is no letter.

    Raises:
        ValueError: another one.
    """
    if type(name) is not str or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.tar", name):
        raise ValueError(
            f"a shard's name {shown(name)}, which leads out of the folder or is no tar's"
        )


def _number(values: dict[str, Any], name: str, most: int) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name}={shown(value)}, not a whole number up to {most}")
    return value


def _one_of(values: dict[str, Any], name: str, known: Sequence[str]) -> None:
    if type(values.get(name)) is not str or values[name] not in known:
        raise ValueError(f"{name} {shown(values.get(name))}, not one of {', '.join(known)}")


def source_format(raw: Any) -> SourceFormat | None:
    """What the index says of a paired set's sources; None for nothing.

    Raises:
        ValueError: of another form.
    """
    if not raw:
        return None
    if not isinstance(raw, dict) or set(raw) != {"kind", "extension", "classes"}:
        raise ValueError("a source of another form than kind, extension, classes")
    _one_of(raw, "kind", get_args(SourceKind))
    _one_of(raw, "extension", EXTENSIONS)
    _number(raw, "classes", 256)
    return SourceFormat(**raw)


def read_offsets(path: Path, samples: int, columns: int) -> np.ndarray:
    """offsets.npy, in memory: a file that is cut short later ends nothing.

    Raises:
        ValueError, OSError: not int64 [samples, columns], or no file.
    """
    if not path.is_file():
        raise ValueError("no file offsets.npy")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<i8", "fortran_order": False, "shape": (samples, columns)}
    )
    size = path.stat().st_size
    if size != (expected := len(head.getvalue()) + 8 * samples * columns):
        raise ValueError(f"offsets.npy of {size:,} bytes for {samples:,} samples, not {expected:,}")
    with open(path, "rb") as file:
        if file.read(len(head.getvalue())) != head.getvalue():
            raise ValueError(f"offsets.npy of another form than int64 [{samples}, {columns}]")
        return np.frombuffer(file.read(), dtype="<i8").reshape(samples, columns)
