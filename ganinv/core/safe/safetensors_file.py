"""Reads a `.safetensors` file: its description first, then each tensor into memory of its own.

    8 bytes    N, little-endian
    N bytes    {name: {"dtype": ..., "shape": [...], "data_offsets": [begin, end]},
               "__metadata__": {name: text}}, JSON
    the rest   the numbers of all tensors, one after the other, without gaps

The library's own readers either map the file, which ends a process whose file shrinks, or are given
its bytes, which takes its length twice. Here nothing is taken that the length of the file does not
cover, and each number is held once.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ganinv.core.errors import shown
from ganinv.core.safe.json_text import parse_json

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
MAX_HEADER = 16 << 20  # bytes of the description; a bundle's has some 100,000
MAX_TENSORS = 20_000  # the largest networks here have some thousand
MAX_DIMENSIONS, MAX_SIDE = 8, 1 << 40
METADATA = "__metadata__"

Place = tuple[torch.dtype, tuple[int, ...], int, int]  # type, shape, first byte, byte behind


def read_file(path: Path, prefix: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and the metadata, each value of it parsed from JSON.

    Args:
        path: a regular file.
        prefix: of the names of the tensors that are read; None: none is.

    Raises:
        ValueError: not such a file, or one cut short; says why.
        OSError: the disk's.
    """
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        length = int.from_bytes(head := file.read(8), "little")
        if len(head) < 8 or length > size - 8:
            raise ValueError(f"cut short: a header of {length} bytes in a file of {size}")
        header = parse_json(file.read(length), MAX_HEADER)
        if not isinstance(header, dict):
            raise ValueError(f"{shown(header)} instead of a description")
        metadata = _metadata(header.pop(METADATA, {}))
        places = _places(header, size - 8 - length)
        tensors = {}
        for name, place in places.items() if prefix is not None else ():
            if name.startswith(prefix or ""):
                tensors[name] = _tensor(file, 8 + length, name, place)
    return tensors, metadata


def _metadata(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or any(type(text) is not str for text in raw.values()):
        raise ValueError("metadata that are no texts by name")
    return {key: parse_json(text.encode(), MAX_HEADER) for key, text in raw.items()}


def _places(header: Mapping[str, Any], size: int) -> dict[str, Place]:
    """Where each tensor lies; together they cover the `size` bytes behind the header."""
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{len(header):,} tensors, more than {MAX_TENSORS:,}")
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for name, (_, _, first, behind) in sorted(places.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise ValueError(f"{shown(name)} at byte {first} instead of {end}: a gap or an overlap")
        end = behind
    if end != size:
        word = "cut short" if size < end else "longer than it says"
        raise ValueError(f"{word}: {end:,} bytes of tensors announced, {size:,} given")
    return places


def _place(name: str, entry: Any) -> Place:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} without dtype, shape and data_offsets")
    shape, offsets, kind = entry["shape"], entry["data_offsets"], entry["dtype"]
    if type(kind) is not str or kind not in TYPES:
        raise ValueError(f"{shown(name)} of type {shown(kind)}, not one of {', '.join(TYPES)}")
    if not _whole(shape, MAX_SIDE) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{shown(name)} with a shape that is no list of few sizes")
    if not _whole(offsets, 1 << 62) or len(offsets) != 2:
        raise ValueError(f"{shown(name)} without a beginning and an end")
    first, behind = offsets
    expected = math.prod(shape) * TYPES[kind].itemsize
    if behind - first != expected:
        raise ValueError(f"{shown(name)} of {behind - first} bytes instead of {expected}")
    return TYPES[kind], tuple(shape), first, behind


def _whole(values: Any, most: int) -> bool:
    return type(values) is list and all(type(v) is int and 0 <= v <= most for v in values)


def _tensor(file: IO[bytes], start: int, name: str, place: Place) -> Tensor:
    dtype, shape, first, behind = place
    found = torch.empty(shape, dtype=dtype, device="cpu")  # also where networks are made on meta
    if behind > first:
        room: memoryview = found.view(-1).view(torch.uint8).numpy().data
        file.seek(start + first)
        if _fill(file, room) != len(room):
            raise ValueError(f"cut short, within {shown(name)}")
    return found


def _fill(file: IO[bytes], room: memoryview) -> int:
    done = 0
    while done < len(room) and (count := file.readinto(room[done:])):  # type: ignore[attr-defined]
        done += count
    return done
