"""Writes sets of shards: several processes, resumable, and never over something that exists.

A set is described by a `Plan`. Its shards are independent: shard i is a function of the plan and i,
so any number of processes writes the same bytes, and a writer that was killed goes on where it was.
The set appears under its name only when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ganinv import __version__
from ganinv.core.errors import DataError, explain, reason_of
from ganinv.core.interface import SourceKind
from ganinv.core.safe.io import sha256_file, write_atomic
from ganinv.dataset.codec import Extension
from ganinv.dataset.index import Index, read_index
from ganinv.dataset.index_file import FORMAT, VERSION


@dataclass(frozen=True)
class Sample:
    """One image on its way into a shard: its name, the bytes of its file, its json and, of a paired
    set, the bytes of the file beside it and, of a map of classes, its highest label."""

    key: str
    image: bytes
    record: dict[str, Any]
    source: bytes | None = None
    label: int = -1


@dataclass(frozen=True)
class Failure:
    """A source image that could not be taken."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All that decides the content of a set.

    Attributes:
        images: source images in all.
        shards: number of tars.
        make: shard number -> its samples and failures; picklable, runs in other processes.
        size: (H, W), px.
        extension: of the image files.
        parameters: plain values; two plans with equal parameters write equal sets.
        origin: for the reader of index.json: source, command, seed.
        source: kind and extension of what is stored beside each image, if anything.
    """

    images: int
    shards: int
    make: Callable[[int], Iterable[Sample | Failure]]
    size: tuple[int, int]
    extension: Extension
    parameters: dict[str, Any]
    origin: dict[str, Any]
    source: tuple[SourceKind, Extension] | None = None


class Counter(Protocol):
    """A number that several processes increase."""

    value: int

    def get_lock(self) -> Any:
        """Its lock."""
        ...


PARALLEL_FROM = 200  # images below which starting processes takes longer than it saves

# In a writing process: its plan and the images that all of them have taken. Sent once, when it
# starts: a plan may name millions of images.
_work: tuple[Plan, Path, Counter, Any] | None = None


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_with_parent() -> None:
    """In a helper process: end when the process that started it has ended, even by SIGKILL. Else it
    would go on alone, and keep the set's lock.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True, name="end with parent").start()


def process_context() -> Any:
    """How helpers start: on Linux by a fork, as those of torch's DataLoader; they use no torch."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def write_set(folder: Path, plan: Plan, processes: int, label: str) -> Index:
    """Write a set, or open it when this very plan has written it before.

    Args:
        folder: of the set.
        plan: what to write.
        processes: how many write.
        label: of the progress bar.

    Raises:
        DataError: the folder holds anything else, or no image could be taken.
    """
    parameters = json.loads(json.dumps(plan.parameters))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _write_set(folder, plan, parameters, processes, label)
    except OSError as error:
        raise DataError(
            explain(
                f"{folder} cannot be written: {reason_of(error)}",
                "a folder on a disk with room, that may be written to",
                "make room or choose another folder, then run the same command again; finished "
                "shards are kept",
            )
        ) from error


def _write_set(
    folder: Path, plan: Plan, parameters: dict[str, Any], processes: int, label: str
) -> Index:
    with _locked(folder):
        if folder.exists() and any(folder.iterdir()):
            _check_same_parameters(folder, parameters)
            return read_index(folder)
        digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
        partial = folder.parent / f".{folder.name}.partial-{digest[:12]}"
        partial.mkdir(exist_ok=True)
        _write_shards(partial, plan, processes, label)
        _finish(partial, plan, parameters)
        os.replace(partial, folder)
    return read_index(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer of a set at a time; a second one waits and then finds the set written."""
    path = folder.parent / f".{folder.name}.lock"
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that writes {folder}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


def _check_same_parameters(folder: Path, parameters: dict[str, Any]) -> None:
    given = f"{folder} holds something else already"
    if (folder / "index.json").is_file():
        theirs = read_index(folder).raw["parameters"]
        keys = sorted(theirs.keys() | parameters.keys())
        changed = [key for key in keys if theirs.get(key) != parameters.get(key)]
        if not changed:
            return
        values = (f"{key}={theirs.get(key)}, now {parameters.get(key)}" for key in changed)
        given = f"{folder} holds a set written with {'; '.join(values)}"
    raise DataError(
        explain(
            given,
            "an empty place, or the same set",
            "choose another folder, or remove this one yourself; nothing was overwritten",
        )
    )


def _write_shards(partial: Path, plan: Plan, processes: int, label: str) -> None:
    missing = [i for i in range(plan.shards) if not (partial / f"{i:06d}.json").is_file()]
    done = plan.images - round(plan.images * len(missing) / plan.shards)
    every = 0.5 if sys.stderr.isatty() else 30.0
    with tqdm(
        total=plan.images, initial=done, desc=label, unit="img", smoothing=0.05, mininterval=every
    ) as bar:
        if processes == 1 or len(missing) <= 1 or plan.images < PARALLEL_FROM:
            for number in missing:
                _write_shard(number, plan, partial, bar.update)
        else:
            _in_parallel(missing, plan, partial, min(processes, len(missing)), bar)


def _in_parallel(
    missing: list[int], plan: Plan, partial: Path, processes: int, bar: tqdm[Any]
) -> None:
    context = process_context()
    seen, stop = context.Value("q", 0), context.RawValue("b", 0)
    pool = ProcessPoolExecutor(processes, context, _start, (plan, partial, seen, stop))
    done = bar.n
    try:
        with _interrupts_later():  # until a helper has begun, Ctrl-C would end it with a traceback
            pending = {pool.submit(_write_shard_here, number) for number in missing}
        while pending:
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            taken = seen.get_obj().value  # without its lock, with which a helper may have ended
            bar.update(min(done + taken, bar.total) - bar.n)
            for future in finished:
                future.result()
    except BrokenProcessPool as error:
        raise DataError(
            explain(
                "a writing process ended without a word (out of memory?)",
                "all processes to finish",
                "run the same command again, with fewer processes; finished shards are kept",
            )
        ) from error
    finally:
        stop.value = 1  # helpers that know of no Ctrl-C end with their next image
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that are started in it begin likewise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(plan: Plan, partial: Path, seen: Counter, stop: Any) -> None:
    global _work
    _work = plan, partial, seen, stop
    end_with_parent()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # the parent does the talking
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _write_shard_here(number: int) -> None:
    assert _work is not None
    plan, partial, seen, stop = _work

    def count(images: int) -> None:
        if stop.value:
            os._exit(130)
        with seen.get_lock():
            seen.value += images

    _write_shard(number, plan, partial, count)


def _write_shard(number: int, plan: Plan, partial: Path, count: Callable[[int], Any]) -> None:
    """Write one tar, then `{number}.json` beside it, which says that the tar is complete."""
    from webdataset import TarWriter

    path = partial / f"{number:06d}.tar"
    temporary = partial / f"{path.name}.{os.getpid()}"
    for left in partial.glob(f"{path.name}.*"):  # of a process that was killed
        left.unlink(missing_ok=True)
    failures, label = [], -1
    with open(temporary, "wb") as file, TarWriter(file, encoder=False, mtime=0) as writer:
        for sample in plan.make(number):
            if isinstance(sample, Failure):
                failures.append([sample.name, sample.reason])
            else:
                record = json.dumps(sample.record).encode()
                parts: dict[str, Any] = {
                    "__key__": sample.key,
                    plan.extension: sample.image,
                    "json": record,
                }
                if plan.source is not None:
                    parts[f"source.{plan.source[1]}"] = sample.source
                    label = max(label, sample.label)
                writer.write(parts)
            count(1)
    kinds = [plan.extension, "json"] + ([f"source.{plan.source[1]}"] if plan.source else [])
    offsets = _offsets(temporary, kinds)
    entry = {
        "name": path.name,
        "samples": len(offsets),
        "bytes": temporary.stat().st_size,
        "sha256": sha256_file(temporary),
    }
    os.replace(temporary, path)
    note = {"entry": entry, "offsets": offsets, "failures": failures, "label": label}
    write_atomic(partial / f"{number:06d}.json", json.dumps(note).encode())


def _offsets(path: Path, kinds: list[str]) -> list[list[int]]:
    """[offset, size] of each kind of member of each sample, in a row, read back from the tar."""
    found: dict[str, dict[str, list[int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, kind = member.name.split(".", 1)
            found.setdefault(key, {})[kind] = [member.offset_data, member.size]
    return [[n for kind in kinds for n in parts[kind]] for parts in found.values()]


def _source_format(plan: Plan, notes: list[dict[str, Any]]) -> dict[str, Any] | None:
    if plan.source is None:
        return None
    kind, extension = plan.source
    return {
        "kind": kind,
        "extension": extension,
        "classes": 1 + max(note["label"] for note in notes),
    }


def _note(path: Path) -> dict[str, Any]:
    """What the writer of a shard noted; a note that is damaged is removed, with its shard."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return {key: found[key] for key in ("entry", "offsets", "failures", "label")}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        path.unlink(missing_ok=True)
        raise DataError(
            explain(
                f"{path} is damaged ({reason_of(error)}) and was removed",
                "the notes of finished shards",
                "run the same command again, which writes that shard anew",
            )
        ) from error


def _finish(partial: Path, plan: Plan, parameters: dict[str, Any]) -> None:
    """Turn the notes of the shards into the set's index."""
    paths = [partial / f"{number:06d}.json" for number in range(plan.shards)]
    notes = [_note(path) for path in paths]
    failed = [failure for note in notes for failure in note["failures"]]
    notes = [note for note in notes if note["entry"]["samples"]]
    if not notes:
        shutil.rmtree(partial)
        first = f"; the first: {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise DataError(
            explain(
                f"none of {plan.images} images could be taken{first}",
                "images of a known format",
                "check the source",
            )
        )
    offsets = np.array([row for note in notes for row in note["offsets"]], dtype=np.int64)
    with open(partial / "offsets.npy", "wb") as file:
        np.save(file, offsets, allow_pickle=False)
    raw = {
        "format": FORMAT,
        "version": VERSION,
        "ganinv": __version__,
        "image": {"height": plan.size[0], "width": plan.size[1], "format": plan.extension},
        "samples": len(offsets),
        "source": _source_format(plan, notes),
        "origin": plan.origin,
        "parameters": parameters,
        "failed": failed,
        "offsets_sha256": sha256_file(partial / "offsets.npy"),
        "shards": [note["entry"] for note in notes],
    }
    write_atomic(partial / "index.json", json.dumps(raw, indent=1).encode())
    kept = {"index.json", "offsets.npy", *(note["entry"]["name"] for note in notes)}
    for path in partial.iterdir():
        if path.name not in kept:
            path.unlink()
