"""The names that pickled tensors and NumPy numbers use, and what they stand for here.

A pickled tensor is a view of a storage (offset, size, stride), and the storage is a second pickle
inside the first: an old `torch.save` stream, bytes of a file like any other. It is read by the same
machine with a still shorter list of names. Nothing of torch's own reader is used.

    storage stream:  magic | protocol | system | ("storage", type, key, place, numel, None) | [key]
                     | numel as int64 | numel numbers, little-endian

A view must lie within its storage and may not be larger than it, and storages may not be read more
often than the file has bytes for them, so no number in a file makes more memory or more work than
its length allows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganinv.core.safe.unpickle import (
    Allowed,
    Buildable,
    Machine,
    Name,
    Names,
    OrderedDict,
    Unreadable,
)

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
TYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
MAX_DIMENSIONS, MAX_SIZE = 8, 1 << 40
STREAM_OPERATIONS = 500  # a storage's stream has about a hundred


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in a row, not yet copied out of the file."""

    raw: memoryview
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A checked view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """A copy of its own, contiguous."""
        if math.prod(self.size) == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        flat = torch.frombuffer(bytearray(self.storage.raw), dtype=self.storage.dtype)
        return flat.as_strided(self.size, self.stride, self.offset).contiguous()


class Budget:
    """Counts bytes that are read once more; a file that uses each byte once stays within it."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        """Count.

        Raises:
            Unreadable: more than there can be.
        """
        self.left -= count
        if self.left < 0:
            raise Unreadable("the same bytes read again and again")


# ------------------------------------------------------------------ storages


@dataclass(frozen=True, slots=True)
class StorageId:
    """What a storage's stream says about itself ahead of its numbers."""

    dtype: torch.dtype
    key: str
    numel: int


def _storage_id(value: Any) -> StorageId:
    if type(value) is not tuple or len(value) != 6 or value[0] != "storage":
        raise Unreadable("an outside object that is not a storage")
    _, kind, key, _, numel, view = value
    if view is not None:
        raise Unreadable("a storage without a length of its own")
    return storage_id(kind, key, numel)


def storage_id(kind: Any, key: Any, numel: Any) -> StorageId:
    """What a persistent id says of a storage.

    Raises:
        Unreadable: another type than of plain numbers, or no length.
    """
    if type(kind) is not Name or kind.name not in TYPES or type(key) is not str:
        raise Unreadable("a storage of an unknown type")
    if type(numel) is not int or numel < 0:
        raise Unreadable("a storage without a length of its own")
    return StorageId(TYPES[kind.name], key, numel)


def storage(blob: Any) -> Storage:
    """`torch.storage._load_from_bytes`: one storage in an old `torch.save` stream.

    Raises:
        Unreadable: the stream is of another form, or its lengths disagree.
    """
    raw = _bytes(blob)
    names = dict.fromkeys(TYPES, Allowed())
    machine = Machine(raw, names, persistent=_storage_id, operations=STREAM_OPERATIONS)
    magic, protocol, system, identity, keys = (machine.load() for _ in range(5))
    if type(magic) is not int or (magic, protocol) != (MAGIC, PROTOCOL):
        raise Unreadable("a storage that is no torch.save stream")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Unreadable("a storage that is not little-endian")
    if type(identity) is not StorageId:
        raise Unreadable("a torch.save stream of something else than a storage")
    if type(keys) is not list or keys != [identity.key]:
        raise Unreadable("a torch.save stream of several storages")
    dtype, numel = identity.dtype, identity.numel
    stated = int.from_bytes(machine.take(8), "little", signed=True)
    if stated != numel or len(raw) - machine.position != numel * dtype.itemsize:
        raise Unreadable(
            f"a storage of {numel} numbers with {len(raw) - machine.position} bytes of data"
        )
    return Storage(raw[machine.position :], dtype, numel)


def _bytes(value: Any) -> memoryview:
    if type(value) is memoryview:
        return value
    if type(value) is bytes:
        return memoryview(value)
    raise Unreadable(f"a {type(value).__name__} where bytes should be")


# ------------------------------------------------------------------ tensors


def _integers(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or len(values) > MAX_DIMENSIONS:
        raise Unreadable("a shape that is no tuple of few numbers")
    if any(type(value) is not int or not 0 <= value < MAX_SIZE for value in values):
        raise Unreadable("a shape of other things than numbers")
    return values


View = tuple[int, tuple[int, ...], tuple[int, ...]]  # offset, size, stride


def checked_view(stored: int, offset: Any, size: Any, stride: Any) -> View:
    """A view of a storage of `stored` numbers.

    Raises:
        Unreadable: the view leaves its storage, or repeats its numbers.
    """
    if type(offset) is not int or offset < 0:
        raise Unreadable("a tensor without a place in its storage")
    size, stride = _integers(size), _integers(stride)
    if len(size) != len(stride):
        raise Unreadable(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    numel = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if numel and (last >= stored or numel > stored):
        raise Unreadable(
            f"a tensor of {numel} numbers up to number {last} of a storage of {stored}"
        )
    return offset, size, stride


def tensor(source: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> StoredTensor:
    """`torch._utils._rebuild_tensor_v2`; gradients, hooks and metadata (the rest) are left out.

    Raises:
        Unreadable: the view leaves its storage, or repeats its numbers.
    """
    if type(source) is not Storage:
        raise Unreadable("a tensor without a storage")
    return StoredTensor(source, *checked_view(source.numel, offset, size, stride))


def parameter(data: Any, *rest: Any) -> StoredTensor:
    """`torch._utils._rebuild_parameter`: its tensor."""
    if type(data) is not StoredTensor:
        raise Unreadable("a parameter without a tensor")
    return data


# ------------------------------------------------------------------ NumPy


class Dtype(Buildable):
    """`numpy.dtype` of plain numbers."""

    def __init__(self, text: Any, *rest: Any) -> None:
        if type(text) is not str or not re.fullmatch(r"[<|=]?([biuf][1248])", text):
            raise Unreadable("a NumPy type that is not one of plain numbers")
        self.numpy = np.dtype(text)

    def build(self, state: Any) -> None:
        """(version, byte order, ...): must be little-endian."""
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise Unreadable("a NumPy type that is not little-endian")


class Array(Buildable):
    """An attribute that is a NumPy array; none of them is needed, so none is read."""

    def __init__(self, *arguments: Any) -> None:
        del arguments

    def build(self, state: Any) -> None:
        """Leave it out."""


def scalar(dtype: Any, raw: Any) -> int | float | bool:
    """`numpy.core.multiarray.scalar`: one number."""
    if type(dtype) is not Dtype:
        raise Unreadable("a NumPy number without a type")
    value = _bytes(raw)
    if len(value) != dtype.numpy.itemsize:
        raise Unreadable(f"a NumPy number of {len(value)} bytes")
    number: int | float | bool = np.frombuffer(value, dtype.numpy)[0].item()
    return number


def encoded(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, by which protocol 2 writes byte strings."""
    if type(text) is not str or encoding != "latin1":
        raise Unreadable("an encoding other than latin1")
    return text.encode("latin1")


def _ordered(pairs: Any = ()) -> OrderedDict:
    """`collections.OrderedDict`, empty or, as Python 2 wrote it, with its pairs."""
    found = OrderedDict()
    for pair in pairs if type(pairs) is list else ():
        if type(pair) not in (list, tuple) or len(pair) != 2 or type(pair[0]) is not str:
            raise Unreadable("a dictionary of other things than names and values")
        found[pair[0]] = pair[1]
    return found


def plain_names(budget: Budget) -> Names:
    """The names of plain values and NumPy numbers, which a file of tensors may carry as well."""

    def encoded_once(text: Any, encoding: Any) -> bytes:
        budget.spend(len(text) if type(text) is str else 0)
        return encoded(text, encoding)

    def strings(values: Any) -> set[str]:
        if type(values) is list:
            budget.spend(len(values))
            if all(type(value) is str for value in values):
                return set(values)
        raise Unreadable("a set of other things than strings")

    numpy = {
        f"numpy.{core}.{name}": Allowed(call=function)
        for core in ("core", "_core")
        for name, function in (
            ("multiarray.scalar", scalar),
            ("multiarray._reconstruct", Array),
            ("numeric._frombuffer", Array),  # protocol 5
        )
    }
    return {
        "collections.OrderedDict": Allowed(call=_ordered, new=OrderedDict),
        "builtins.set": Allowed(call=strings),
        "__builtin__.set": Allowed(call=strings),
        "_codecs.encode": Allowed(call=encoded_once),
        "numpy.dtype": Allowed(call=Dtype),
        "numpy.ndarray": Allowed(),
        **numpy,
    }


def tensor_names(length: int) -> Names:
    """The names in a pickle of `length` bytes that carries its storages inside, with a budget of
    their own."""
    budget = Budget(2 * length)  # protocol 2 reads a storage once as text and once as bytes

    def storage_once(blob: Any) -> Storage:
        budget.spend(len(_bytes(blob)))
        return storage(blob)

    return {
        **plain_names(budget),
        "torch.storage._load_from_bytes": Allowed(call=storage_once),
        "torch._utils._rebuild_tensor_v2": Allowed(call=tensor),
        "torch._utils._rebuild_parameter": Allowed(call=parameter),
        "torch._utils._rebuild_parameter_with_state": Allowed(call=parameter),
    }
