"""Reads a `.npy` as numbers, among them the boundaries that published code uses for editing.

    InterFaceGAN   (1,D) or (1,L,D) float, a plain array
    IDInvert       a pickled dict: {"boundary": (1,L,D) float, "meta_data": {"manipulate_layers":
                   [row, ...]}}; read by `core/unpickle.py`, which knows the four names it needs

An array may not claim more numbers than the file has bytes for; nothing in the file is executed.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import WeightsError, explain, reason_of, shown
from ganinv.core.safe.io import check_file
from ganinv.core.safe.unpickle import Allowed, Buildable, Machine, Unreadable
from ganinv.core.safe.unpickle_tensors import Budget, encoded

MAGIC = b"\x93NUMPY"
TYPES = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i1": torch.int8,
    "i2": torch.int16, "i4": torch.int32, "i8": torch.int64, "u1": torch.uint8,
}  # fmt: skip
MAX_BYTES, MAX_HEADER, MAX_DIMENSIONS = 64 << 20, 4096, 8
LAYERS = 1 << 10  # most layers that a boundary may name
STYLE_CHANNELS = 1000  # fewer than the styles of any StyleGAN of 256 px or more have
STYLECLIP = (
    ", StyleCLIP's global directions (fs3.npy) by its shape: they move channels of styles, not W+"
)


@dataclass(frozen=True)
class Boundary:
    """A direction in a latent space."""

    direction: Tensor  # [1,D] or [1,L,D] float32, as stored
    layers: list[int] | None  # of wp that it moves; None: all


def read_boundary(path: str | Path) -> Boundary:
    """A boundary file of InterFaceGAN or IDInvert.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a boundary, more than data, or numbers that are not finite.
    """
    path = Path(path)
    check_file(path, "boundary file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise WeightsError(f"{path} has {size} bytes; expected a boundary, at most {MAX_BYTES}")
    try:
        found = _content(path.read_bytes())
        boundary = found if isinstance(found, Boundary) else Boundary(found, None)
        if boundary.direction.ndim not in (2, 3) or len(boundary.direction) != 1:
            shape = list(boundary.direction.shape)
            told = STYLECLIP if len(shape) == 2 and shape[0] > STYLE_CHANNELS else ""
            raise Unreadable(f"an array of shape {shape}{told}")
        if not boundary.direction.is_floating_point() or not bool(
            torch.isfinite(boundary.direction).all()
        ):
            raise Unreadable("numbers that are not finite")
    except (OSError, RuntimeError, Unreadable) as error:
        why = str(error) if isinstance(error, Unreadable) else reason_of(error)
        raise WeightsError(
            explain(
                f"{path} was refused: {why}",
                "a boundary of InterFaceGAN or IDInvert, numbers of shape [1,D] or [1,L,D] "
                "(ganinv never runs code stored in a file)",
                "pass the published file, or save the direction with numpy.save as float32",
            )
        ) from None
    return Boundary(boundary.direction.float(), boundary.layers)


def array_of(data: bytes) -> Tensor:
    """The numbers in the bytes of a `.npy` file.

    Raises:
        Unreadable: no such bytes, or a pickled value.
    """
    found = _content(data)
    if not isinstance(found, Tensor):
        raise Unreadable("a pickled value instead of numbers")
    return found


def _content(data: bytes) -> Tensor | Boundary:
    if data[:6] != MAGIC or len(data) < 10 or data[6] not in (1, 2, 3):
        raise Unreadable("it does not begin as a .npy file does")
    width = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > MAX_HEADER or start > len(data):
        raise Unreadable(f"a header of {length} bytes")
    try:
        header = ast.literal_eval(data[8 + width : start].decode("latin1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise Unreadable(f"a header that cannot be read ({type(error).__name__})") from None
    if descr == "|O":
        return _dictionary(memoryview(data)[start:])
    return _array(shape, _number_type(descr), fortran, data[start:])


def _number_type(descr: Any) -> torch.dtype:
    found = re.fullmatch(r"[<|=]?([fiu][1248])", descr) if type(descr) is str else None
    if found is None or found[1] not in TYPES:
        raise Unreadable(f"an array of {shown(descr)}, not of plain little-endian numbers")
    return TYPES[found[1]]


def _array(shape: Any, dtype: torch.dtype, fortran: Any, raw: bytes | memoryview) -> Tensor:
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
        raise Unreadable("a shape that is no tuple of few numbers")
    if (
        any(type(n) is not int or not 0 < n <= MAX_BYTES for n in shape)
        or type(fortran) is not bool
    ):
        raise Unreadable("a shape of other things than sizes")
    if math.prod(shape) * dtype.itemsize != len(raw):
        announced = f"{math.prod(shape)} numbers of {dtype.itemsize} bytes announced"
        raise Unreadable(f"{announced}, {len(raw)} bytes given")
    flat = torch.frombuffer(bytearray(raw), dtype=dtype)
    if fortran and len(shape) > 1:
        return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape)))).contiguous()
    return flat.reshape(shape)


# ------------------------------------------------------------------ IDInvert's dictionary


class _Type(Buildable):
    """`numpy.dtype` of plain numbers or of objects."""

    def __init__(self, text: Any, *rest: Any) -> None:
        self.number = None if text in ("O8", "O") else _number_type(text)

    def build(self, state: Any) -> None:
        """(version, byte order, ...)."""
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise Unreadable("a NumPy type that is not little-endian")


class _Array(Buildable):
    """`numpy.ndarray`: numbers, or one object. Bytes are counted: many arrays may not share them.

    Args:
        budget: of the file.
        arguments: NumPy's, of no effect.
    """

    value: Any = None

    def __init__(self, budget: Budget, *arguments: Any) -> None:
        self.budget = budget

    def build(self, state: Any) -> None:
        """(version, shape, type, Fortran order, bytes or [object])."""
        if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], _Type):
            raise Unreadable("an array of another form than NumPy writes")
        _, shape, kind, fortran, raw = state
        if kind.number is None:
            if shape != () or type(raw) is not list or len(raw) != 1:
                raise Unreadable("an array of several objects")
            self.value = raw[0]
        elif isinstance(raw, bytes | memoryview):
            self.budget.spend(len(raw))
            self.value = _array(shape, kind.number, fortran, raw)
        else:
            raise Unreadable("an array without its bytes")


def _dictionary(data: memoryview) -> Boundary:
    budget = Budget(3 * len(data))  # protocol 2 has bytes as text, then as bytes, then as numbers

    def encoded_once(text: Any, encoding: Any) -> bytes:
        budget.spend(len(text) if type(text) is str else 0)
        return encoded(text, encoding)

    names = {
        "numpy.core.multiarray._reconstruct": Allowed(call=partial(_Array, budget)),
        "numpy._core.multiarray._reconstruct": Allowed(call=partial(_Array, budget)),
        "numpy.ndarray": Allowed(),
        "numpy.dtype": Allowed(call=_Type),
        "_codecs.encode": Allowed(call=encoded_once),
    }
    outer = Machine(data, names).load()
    found = outer.value if isinstance(outer, _Array) else None
    inner = found.get("boundary") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(inner, _Array):
        raise Unreadable("a pickled value other than IDInvert's dictionary")
    if not isinstance(inner.value, Tensor):
        raise Unreadable("a boundary that is no array of numbers")
    meta = found.get("meta_data")
    layers = meta.get("manipulate_layers") if isinstance(meta, dict) else None
    return Boundary(inner.value, None if layers is None else _layers(layers))


def _layers(given: Any) -> list[int] | None:
    """manipulate_layers: numbers in a list, a tuple or an array, or text as IDInvert's command line
    takes it, "0-5,7"; empty: all layers (None)."""
    if isinstance(given, _Array) and isinstance(given.value, Tensor) and given.value.ndim <= 1:
        given = given.value.reshape(-1)[: LAYERS + 1].tolist()
    if type(given) is str and re.fullmatch(r"\s*(\d{1,4}(-\d{1,4})?\s*(,\s*|$))*", given):
        edges = [part.strip().split("-") for part in given.split(",") if part.strip()]
        given = [n for edge in edges for n in range(int(edge[0]), int(edge[-1]) + 1)]
    if type(given) not in (list, tuple) or not all(
        type(n) is int and 0 <= n < LAYERS for n in given
    ):
        raise Unreadable("manipulate_layers that are no list of layers")
    return list(given) or None
