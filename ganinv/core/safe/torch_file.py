"""What torch's restricted reader lets through although it costs more than the file's length.

It runs no code of a file. But zip entries may be compressed or lie over one another, a view may
repeat one number endlessly, and tuples inside tuples, each twice in the next, double the time of a
hash with every few bytes. All of it is refused ahead of reading, in time proportional to the file;
only views are looked at afterwards, before anything copies them.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

MAX_OPERATIONS = 1_000_000  # of a pickle; a checkpoint with its optimizer has some hundred thousand
MAX_WEIGHT = 10_000  # values that a tuple unfolds to; a tensor's arguments are some twenty
LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys


def check_size_claims(path: Path) -> None:
    """Look at a torch file without reading its content.

    Raises:
        ValueError: it would cost more than its length; says how.
    """
    for pickled in _pickles(path):
        _weigh(pickled)


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            for _ in range(LEGACY_PICKLES):
                yield file
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a compressed zip file, which torch.save never writes")
        if len({entry.header_offset for entry in entries}) != len(entries):
            raise ValueError("a zip file whose entries overlap")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("a zip file whose entries are larger than the file")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                yield io.BytesIO(archive.read(entry))


MARK = -1


def _weigh(file: IO[bytes]) -> None:
    """Run the stack of one pickle on weights: to how many values each one unfolds."""
    stack: list[int] = []
    memo: dict[Any, int] = {}
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAX_OPERATIONS:
            raise ValueError("more operations than any file of tensors needs")
        name = operation.name
        if name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo.get(argument, 1))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1] if stack else 1
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1] if stack else 1
        elif name == "DUP":
            stack.append(stack[-1] if stack else 1)
        else:
            taken = _take(stack, operation)
            weight = 1 + sum(taken) if name.startswith("TUPLE") else 1
            if weight > MAX_WEIGHT:
                raise ValueError("tuples inside tuples without end")
            marks = (pickletools.markobject,)
            stack += [MARK if kind in marks else weight for kind in operation.stack_after]


def _take(stack: list[int], operation: pickletools.OpcodeInfo) -> list[int]:
    """What an operation takes off the stack."""
    taken: list[int] = []
    before = operation.stack_before
    if pickletools.markobject in before:
        while stack and (value := stack.pop()) != MARK:
            taken.append(value)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        taken.append(stack.pop() if stack else 1)
    return taken


def check_shared_objects(content: Any) -> None:
    """No tensor may have more numbers than its storage, so that a copy costs what was read.

    Raises:
        ValueError: one has.
    """
    left, seen = [content], set()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.layout != torch.strided or _numbers(value) > value.untyped_storage().nbytes():
                raise ValueError(f"a tensor of {list(value.shape)} that repeats its numbers")
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value


def _numbers(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize
