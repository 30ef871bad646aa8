"""Checkpoints as files: written whole or not at all, checked, found again."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from ganinv.core.command import entry
from ganinv.core.errors import RunError, WeightsError, WeightsMissing, explain, named
from ganinv.core.safe.io import load_tensors, write_atomic
from ganinv.core.safe.unpickle import Unreadable
from ganinv.core.safe.zip_file import open_zip
from ganinv.run.disk import free_space

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def write_checkpoint(path: Path, content: memoryview) -> None:
    """Temporary name, sync, keep the `last.ckpt` before as `previous.ckpt`, rename.

    Raises:
        RunError: it could not be written; says how much room there is.
    """
    try:
        if path.name == LAST and path.is_file():
            link = path.with_name(f".{PREVIOUS}")
            link.unlink(missing_ok=True)
            link.hardlink_to(path)
            link.replace(path.with_name(PREVIOUS))
            link.unlink(missing_ok=True)  # renaming a file onto its own link does nothing
        write_atomic(path, content)
    except OSError as error:
        free = free_space(path)
        raise RunError(
            explain(
                f"the checkpoint {path} ({len(content) / 2**20:.1f} MiB) could not be written: "
                f"{error.strerror or error}; {free} free there",
                "a disk that takes it; the checkpoints written before are untouched",
                f"make room or make it writable, then {entry('train')} <same options> resume=auto",
            )
        ) from error


def newest_sound(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint of a run, and the newer ones that are damaged, with the reason.

    A checkpoint is a zip file with a checksum of every tensor; all of it is read.
    """
    best = sorted(folder.glob("best-*.ckpt"), reverse=True)
    damaged: list[tuple[Path, str]] = []
    for path in [folder / LAST, folder / PREVIOUS, *best]:
        if not path.is_file():
            continue
        fault = damage(path)
        if fault is None:
            return path, damaged
        damaged.append((path, fault))
    return None, damaged


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's bytes, None when they are as they were written."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file, open_zip(file, size) as archive:
            bad = archive.testzip()
    except Unreadable as error:
        return str(error)
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, zlib.error) as error:
        return f"cut short: {size:,} bytes, {error}"
    return None if bad is None else f"the checksum of {named(bad)} does not fit"


def check_undamaged(path: Path) -> None:
    """Compare every byte of a checkpoint with its checksums; torch's reader does not.

    Raises:
        WeightsError: they differ.
    """
    if (fault := damage(path)) is not None:
        raise WeightsError(
            explain(
                f"{path} is damaged: {fault}",
                "the file as it was written",
                "take another checkpoint of the run, such as previous.ckpt, or copy it again",
            )
        )


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A ganinv training checkpoint as a dict, on the CPU.

    Raises:
        WeightsMissing: no such file.
        WeightsError: unreadable, damaged, or not written by ganinv.
    """
    if not Path(path).is_file():
        raise WeightsMissing(
            f"no checkpoint at {path}; expected a .ckpt file that train.py wrote. To fix: pass "
            "checkpoint=runs/<run>/checkpoints/best.ckpt"
        )
    checkpoint = load_tensors(path)
    check_undamaged(Path(path))
    if not isinstance(checkpoint, dict) or "ganinv" not in checkpoint:
        raise WeightsError(
            f"{path} is not a ganinv checkpoint (no 'ganinv' entry); expected a .ckpt file that "
            "train.py wrote"
        )
    return checkpoint
