"""Reads what `torch.save` writes, in both of its formats, as data: torch's own reader is not used.

    zip (torch >= 1.6)   {name}/data.pkl, {name}/data/{key} of each storage, {name}/byteorder
    before               magic | protocol | system | content | keys, each a pickle; then of each key
                         its numel as int64 and its numbers, little-endian

torch's restricted reader runs no code of a file either. But it makes a `bytearray(8 << 30)` where
it is asked to, gives `torch.FloatTensor(sizes)` as unset memory, unfolds shared lists into its
messages, and finds `data.PKL`. Here the pickle is read by `unpickle.Machine` with the names below,
so there is one opinion on what a file holds. A file's first bytes say which format it has.

Bounds: a storage has as many bytes as its entry, all of them no more than the file; a view lies in
its storage; tensors and containers that are used at several places count at each of them. Every
storage of a zip file is checked against its checksum.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from typing import IO, Any

import torch
from torch import Tensor

from ganinv.core.safe.unpickle import Allowed, Buildable, Machine, Names, Unreadable
from ganinv.core.safe.unpickle_tensors import (
    MAGIC,
    PROTOCOL,
    TYPES,
    Budget,
    StorageId,
    checked_view,
    plain_names,
    storage_id,
)
from ganinv.core.safe.zip_file import open_zip

ZIP, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes
VERSION = MAGIC, PROTOCOL
MAX_OPERATIONS = 400_000  # of a pickle; a checkpoint with its optimizer has some hundred thousand
MAX_PICKLE = 64 << 20  # bytes of it; a checkpoint with its optimizer has some five million
MAX_DEPTH = 60  # containers inside containers
MAX_KEY = 100  # characters of a storage's name
SLACK = 64 << 20  # bytes of tensors that may be used at several places, whatever the file's length
PIECE = 1 << 20


def read_torch(file: IO[bytes], more: Names | None = None, *, outline: bool = False) -> Any:
    """The content of a file of `torch.save`: tensors on the CPU, containers, plain values.

    Args:
        file: open, of a known end.
        more: names that the file may use beside those of tensors and plain values.
        outline: tensors on torch's meta device, whose numbers are not read; of a zip file only.

    Raises:
        Unreadable: neither format, cut short, damaged, more than data, or more than its length.
        OSError: the disk's.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(len(LEGACY))
    if head[:4] == ZIP:
        return _read_zip(file, size, more or {}, outline)
    if head == LEGACY:
        return _read_legacy(file, size, more or {})
    if size == 0:
        raise Unreadable("it is empty")
    if LEGACY.startswith(head):
        raise Unreadable(f"it is cut short, after {size} bytes")
    raise Unreadable("it does not begin as a file of torch.save does")


class Options(argparse.Namespace, Buildable):
    """`argparse.Namespace`, as rosinality's trainer saves its command line."""

    def build(self, state: Any) -> None:
        """Its options by name."""
        if not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise Unreadable("options of a command line without names")
        self.__dict__.update(state)


class _Storages:
    """The storages of a file by key, as flat tensors."""

    def __init__(self, size: int) -> None:
        self.left, self.found = size, dict[str, tuple[StorageId, Tensor]]()

    def of(self, value: Any) -> Tensor:
        """What a persistent id stands for: ("storage", type, key, place, numel[, None])."""
        if type(value) is not tuple or len(value) not in (5, 6) or value[0] != "storage":
            raise Unreadable("an outside object that is not a storage")
        if len(value) == 6 and value[5] is not None:
            raise Unreadable("a storage without a length of its own")
        identity = storage_id(value[1], value[2], value[4])
        if len(identity.key) > MAX_KEY:
            raise Unreadable("a storage with a name of no number")
        if identity.key not in self.found:
            self.left -= identity.numel * identity.dtype.itemsize
            if self.left < 0:
                raise Unreadable("it is cut short: its storages have more bytes than the file")
            self.found[identity.key] = identity, self.take(identity)
        known, flat = self.found[identity.key]
        if known != identity:
            raise Unreadable(f"a storage {identity.key!r} of two kinds")
        return flat

    def take(self, identity: StorageId) -> Tensor:
        """Memory for a storage, which is filled now or later."""
        return torch.empty(identity.numel, dtype=identity.dtype)


def _fill(flat: Tensor, file: IO[bytes], key: str) -> None:
    """Read a storage's numbers from where the file stands."""
    if not flat.numel():
        return
    room: memoryview = flat.view(torch.uint8).numpy().data
    for start in range(0, len(room), PIECE):
        part = room[start : start + PIECE]
        piece = file.read(len(part))
        if len(piece) != len(part):
            raise Unreadable(f"it is cut short, within storage {key!r}")
        part[:] = piece


def _view(source: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`; gradients and hooks (the rest) are left out."""
    if not isinstance(source, Tensor):
        raise Unreadable("a tensor without a storage")
    offset, size, stride = checked_view(source.numel(), offset, size, stride)
    if 0 in size:
        return torch.empty(size, dtype=source.dtype)
    return source.as_strided(size, stride, offset)


def _tensor(data: Any, *rest: Any) -> Tensor:
    """`torch._utils._rebuild_parameter`: its tensor."""
    if not isinstance(data, Tensor):
        raise Unreadable("a parameter without a tensor")
    return data


def _size(values: Any) -> tuple[int, ...]:
    """`torch.Size`."""
    if type(values) is not tuple or any(type(value) is not int for value in values):
        raise Unreadable("a shape of other things than numbers")
    return values


def _device(*words: Any) -> str:
    """`torch.device`: its name; everything is read to the CPU."""
    if not all(type(word) in (str, int) and len(str(word)) <= MAX_KEY for word in words):
        raise Unreadable("a device without a name")
    return ":".join(map(str, words))


def _names(size: int, more: Names) -> Names:
    options = Allowed(call=lambda: Options(), new=lambda: Options())
    return {
        **plain_names(Budget(2 * size)),
        **dict.fromkeys(TYPES, Allowed()),
        "torch._utils._rebuild_tensor": Allowed(call=_view),
        "torch._utils._rebuild_tensor_v2": Allowed(call=_view),
        "torch._utils._rebuild_parameter": Allowed(call=_tensor),
        "torch._utils._rebuild_parameter_with_state": Allowed(call=_tensor),
        "torch.Size": Allowed(call=_size),
        "torch.device": Allowed(call=_device),
        "argparse.Namespace": options,
        **more,
    }


# ------------------------------------------------------------------ the two formats


def _read_zip(file: IO[bytes], size: int, more: Names, outline: bool) -> Any:
    try:
        with open_zip(file, size) as archive:
            prefix = _prefix(archive)
            pickled = archive.read(prefix + "data.pkl")
            storages = _Storages(size)

            def take(identity: StorageId) -> Tensor:
                entry = _entry(archive, f"{prefix}data/{identity.key}")
                expected = identity.numel * identity.dtype.itemsize
                if entry.file_size != expected:
                    raise Unreadable(
                        f"a storage {identity.key!r} of {identity.numel} numbers with "
                        f"{entry.file_size} bytes instead of {expected}"
                    )
                if outline:
                    return torch.empty(identity.numel, dtype=identity.dtype, device="meta")
                flat = torch.empty(identity.numel, dtype=identity.dtype)
                with archive.open(entry) as numbers:
                    _fill(flat, numbers, identity.key)
                    numbers.read(1)  # the end, where the checksum is compared
                return flat

            storages.take = take  # type: ignore[method-assign]
            return _content(memoryview(pickled), _names(size, more), storages, size)
    except zipfile.BadZipFile as error:
        if "CRC" in str(error):
            raise Unreadable("a checksum does not fit: bytes of it were changed") from None
        raise Unreadable(
            f"it is cut short or damaged, a zip file of {size} bytes without its end"
        ) from None
    except Unreadable:
        raise
    except (EOFError, LookupError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Unreadable(f"a damaged zip file ({type(error).__name__})") from None


def _prefix(archive: zipfile.ZipFile) -> str:
    """The folder of the archive in which all lies."""
    pickles = [e for e in archive.infolist() if e.filename.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Unreadable(f"a zip file with {len(pickles)} entries data.pkl instead of one")
    if pickles[0].file_size > MAX_PICKLE:
        raise Unreadable(f"a data.pkl of {pickles[0].file_size} bytes, more than {MAX_PICKLE}")
    prefix = pickles[0].filename.removesuffix("data.pkl")
    order = prefix + "byteorder"
    if order in archive.NameToInfo and archive.read(order) != b"little":
        raise Unreadable("numbers that are not little-endian")
    return prefix


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    if name not in archive.NameToInfo:
        raise Unreadable(f"no entry {name[:MAX_KEY]!r} in the zip file")
    return archive.NameToInfo[name]


def _read_legacy(file: IO[bytes], size: int, more: Names) -> Any:
    file.seek(0)
    head = file.read(MAX_PICKLE)
    storages = _Storages(size)
    machine = Machine(
        memoryview(head), _names(size, more), persistent=storages.of, operations=MAX_OPERATIONS
    )
    magic, protocol, system = machine.load(), machine.load(), machine.load()
    if (
        type(magic) is not int
        or type(protocol) is not int
        or (magic, protocol) != (MAGIC, PROTOCOL)
    ):
        raise Unreadable("another version of torch.save's old format")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Unreadable("numbers that are not little-endian")
    content, keys = machine.load(), machine.load()
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise Unreadable("storages without names")
    if len(keys) != len(set(keys)) or set(keys) != set(storages.found):
        raise Unreadable(f"{len(keys)} storages instead of the {len(storages.found)} it uses")
    file.seek(machine.position)
    for key in keys:
        flat = storages.found[key][1]
        if file.read(8) != flat.numel().to_bytes(8, "little"):
            raise Unreadable(f"it is cut short, or storage {key[:MAX_KEY]!r} has another length")
        _fill(flat, file, key[:MAX_KEY])
    if file.read(1):
        raise Unreadable("bytes behind its end")
    _check_unfolded(content, MAX_OPERATIONS - machine.left, size)
    return content


def _content(pickled: memoryview, names: Names, storages: _Storages, size: int) -> Any:
    machine = Machine(pickled, names, persistent=storages.of, operations=MAX_OPERATIONS)
    content = machine.load()
    _check_unfolded(content, MAX_OPERATIONS - machine.left, size)
    return content


# ------------------------------------------------------------------ what is used several times

Measure = tuple[int, int, int]  # values, bytes of tensors and of text, depth


def _check_unfolded(content: Any, operations: int, size: int) -> None:
    """Nothing may cost more to walk, print or copy than a file of this length can hold.

    Raises:
        Unreadable: containers inside themselves, or used again and again inside one another;
            tensors and text likewise.
    """
    values, numbers, _ = _measure(content, {}, 0)
    if values > 2 * operations + 1000:
        raise Unreadable("values inside values without end")
    if numbers > 4 * size + SLACK:
        raise Unreadable(f"{size} bytes that are used as {numbers} bytes of tensors and text")


def _measure(value: Any, seen: dict[int, Measure | None], depth: int) -> Measure:
    """How many values and bytes something unfolds to."""
    if isinstance(value, Tensor):
        return 1, value.numel() * value.itemsize, 0
    if isinstance(value, Options):
        value = value.__dict__
    if not isinstance(value, dict | list | tuple):
        return 1, len(value) if isinstance(value, str) else 0, 0
    if id(value) not in seen:
        if depth > MAX_DEPTH:
            raise Unreadable("values inside values without end")
        seen[id(value)] = None
        parts = value.values() if isinstance(value, dict) else value
        found = [_measure(part, seen, depth + 1) for part in parts]
        values, numbers = 1 + sum(f[0] for f in found), sum(f[1] for f in found)
        if isinstance(value, dict):
            numbers += sum(len(key) for key in value if isinstance(key, str))
        seen[id(value)] = values, numbers, 1 + max((f[2] for f in found), default=0)
    known = seen[id(value)]
    if known is None or known[2] > MAX_DEPTH:
        raise Unreadable("values inside values without end")
    return known
