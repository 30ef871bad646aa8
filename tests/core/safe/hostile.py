"""Files whose structure is wrong: every value of a small good one replaced by values of wrong types
and sizes, one at a time; and a pool of processes in which they are read within bounds."""

from __future__ import annotations

import copy
import io
import json
import multiprocessing
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ganinv.core.errors import USER_ERRORS

SECONDS, MEMORY = 2.0, 1 << 30
TRIES = 3  # of a file that was slow: a machine that others use may stand still for seconds
SLOW = "slow: "


def nested(levels: int = 40) -> list[Any]:
    """2^levels values in a few bytes, where sharing is kept."""
    value: list[Any] = [0]
    for _ in range(levels):
        value = [value, value]
    return value


def deep(levels: int = 200) -> list[Any]:
    """Lists inside lists."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


PLAIN: list[Any] = [
    None, True, -1, 0, 3, 1.5, 10**5, 10**6, 1 << 31, 1 << 62, 10**300, float("nan"), float("inf"),
    "", "x", "../../up", "\x1b[2J", "a" * 5000, [], {}, [[]], {"a": {"b": []}}, [1, 2], "eps",
]  # fmt: skip
TENSORS: list[Any] = [
    torch.tensor(1.0), torch.empty(0), torch.zeros(1, 1), torch.zeros(2, 3, 4, 5, 6),
    torch.full((4,), float("nan")), torch.zeros(3, dtype=torch.int64), torch.zeros(2).bool(),
]  # fmt: skip


def changed(value: Any, others: list[Any], limit: int = 8) -> Iterator[Any]:
    """`value` with each part in it replaced, left out or renamed; of long containers the first and
    the last `limit` parts."""
    yield from (other for other in others)
    if isinstance(value, dict):
        keys = list(value)
        for key in keys if len(keys) <= 2 * limit else keys[:limit] + keys[-limit:]:
            for part in changed(value[key], others, limit):
                yield {**value, key: part}
            yield {k: v for k, v in value.items() if k != key}
            yield {(7 if k == key else k): v for k, v in value.items()}
    elif isinstance(value, list) and value:
        for part in changed(value[0], others, limit):
            yield [part, *value[1:]]
        yield value[1:]
        yield value * 3


def safetensors(header: Any, data: bytes) -> bytes:
    """A file around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def split_safetensors(good: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a file."""
    (length,) = struct.unpack("<Q", good[:8])
    return json.loads(good[8 : 8 + length]), good[8 + length :]


def torch_bytes(content: Any, legacy: bool = False) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def metadata_changed(good: bytes, names: Iterable[str] | None = None) -> Iterator[bytes]:
    """A bundle with each value of its metadata changed, or of the entries of these names."""
    header, data = split_safetensors(good)
    for name in header["__metadata__"] if names is None else names:
        text = header["__metadata__"][name]
        for value in changed(json.loads(text), PLAIN):
            other = copy.copy(header)
            other["__metadata__"] = header["__metadata__"] | {name: json.dumps(value)}
            yield safetensors(other, data)
        for text in ("", "[" * 100_000, "1" * 5000, '{"a":' * 5000, "NaN", "\x00", "1e999"):
            other = copy.copy(header)
            other["__metadata__"] = header["__metadata__"] | {name: text}
            yield safetensors(other, data)


def header_changed(good: bytes) -> Iterator[bytes]:
    """A safetensors file with each value of some tensors' descriptions changed."""
    header, data = split_safetensors(good)
    name = next(key for key in header if key != "__metadata__")
    for value in changed(header[name], PLAIN):
        yield safetensors({**header, name: value}, data)
    for length in (0, 1, 1 << 20, 1 << 40, (1 << 64) - 1):
        yield struct.pack("<Q", length) + good[8:]
    yield safetensors(b"[" * 100_000, data)
    yield safetensors(header, data[:-5])


# ------------------------------------------------------------------ reading within bounds


class TooSlow(BaseException):
    """A reader that takes longer than it may."""


def _bound() -> None:
    """In a process of the pool: address space as it is now, and 1 GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY + (256 << 20)  # threads, the allocator's arenas
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _alarm(*_: Any) -> None:
    raise TooSlow


def _outcome(reader: Callable[[Path], Any], path: Path, errors: tuple[type, ...]) -> str:
    """ "" for a good end, else what went wrong."""
    signal.signal(signal.SIGALRM, _alarm)
    begin = _cpu_seconds()
    signal.setitimer(signal.ITIMER_REAL, 5 * SECONDS)  # others use the machine too
    try:
        reader(path)
    except errors as error:
        text = str(error)
        if not text or len(text) > 3000 or "\n" in text or "\x1b" in text:
            return f"words: {text[:300]!r}"
        if "unpickl" in text or "miniz" in text or "object at 0x" in text:
            return f"a library's words: {text[:300]!r}"
    except TooSlow:
        return f"{SLOW}more than {5 * SECONDS} s"
    except BaseException as error:  # noqa: BLE001
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = _cpu_seconds() - begin
    return f"{SLOW}{seconds:.1f} s" if seconds > SECONDS else ""


def _cpu_seconds() -> float:
    """Of this process, and of those that a reader started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _several(reader: Any, paths: list[Path], errors: tuple[type, ...]) -> list[tuple[str, str]]:
    found = ((path.name, _judged(reader, path, errors)) for path in paths)
    return [(name, fault) for name, fault in found if fault]


def _judged(reader: Any, path: Path, errors: tuple[type, ...]) -> str:
    """The outcome; slow is what is slow every time."""
    fault = ""
    for _ in range(TRIES):
        fault = _outcome(reader, path, errors)
        if not fault.startswith(SLOW):
            break
    return fault


def faults(
    reader: Callable[[Path], Any], paths: list[Path], errors: tuple[type, ...], processes: int = 2
) -> list[tuple[str, str]]:
    """Of each file that is neither read nor refused in one sentence: its name, and what happened.

    A process that ends (SIGBUS, out of memory) breaks the pool, and so the test.
    """
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _bound) as pool:
        parts = [paths[i::processes] for i in range(processes)]
        futures = [pool.submit(_several, reader, part, errors) for part in parts]
        return [fault for future in futures for fault in future.result(timeout=300)]


def written(folder: Path, contents: Iterable[bytes], suffix: str) -> list[Path]:
    """Each content as a file of the folder."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number:05d}{suffix}")
        paths[-1].write_bytes(content)
    assert paths
    return paths


def assert_bounded(paths: list[Path], *readers: Callable[[Path], Any]) -> None:
    """Each file is read or refused in one sentence, by each reader."""
    for reader in readers:
        found = faults(reader, paths, USER_ERRORS)
        assert not found, (reader, found[:5])


def pickled(*parts: bytes) -> bytes:
    """A pickle of these operations."""
    return b"\x80\x02" + b"".join(parts) + b"."
