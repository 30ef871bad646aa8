"""`ganinv verify`: finds missing, truncated and changed tars and bad images, and names them."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, DataError, explain

if TYPE_CHECKING:
    from ganinv.dataset.index import Index

PARALLEL_FROM = 2_000  # images below which starting processes takes longer than it saves


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "verify",
        help="find truncated tars and bad images in sets of shards",
        description="Check every tar against its sha256 and decode every image. "
        "The exit code is 1 when anything is wrong.",
    )
    parser.add_argument(
        "folder",
        help="a set (with index.json), or a folder of sets; or the address of one (https://, s3://)",
    )
    parser.add_argument("--no-decode", action="store_true", help="sizes and sha256 only")
    parser.add_argument("--processes", type=int, metavar="N", help="default: all cores")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the sets; print every fault.

    Raises:
        DataError: no set there, or one that cannot be read.
    """
    from ganinv.core.errors import reason_of

    if args.processes is not None and args.processes < 1:
        raise ConfigError(explain(f"--processes {args.processes}", "at least 1", "raise it"))
    try:
        return _run(args)
    except OSError as error:
        raise DataError(
            explain(
                f"{args.folder} cannot be checked: {reason_of(error)}",
                "a set that can be read, and room in the temporary folder for one tar from afar",
                "check the permissions and the disk (TMPDIR)",
            )
        ) from error


def _run(args: argparse.Namespace) -> int:
    from ganinv.dataset.index import read_index
    from ganinv.dataset.place import is_remote
    from ganinv.dataset.shard import cores

    if is_remote(args.folder):
        return _verify_far(args.folder.rstrip("/"), not args.no_decode)
    faulty = 0
    for folder in _sets(Path(args.folder)):
        index = read_index(folder)
        faults = _faults(index, not args.no_decode, args.processes or cores())
        for fault in faults:
            print(f"BAD  {fault}", flush=True)
        faulty += bool(faults)
        state = f"{len(faults)} faults" if faults else "good"
        print(f"{folder}: {len(index.names)} tars, {len(index):,} images: {state}", flush=True)
        if faults:
            command = index.command
            print(f"To fix: copy the named tars again, or remove {folder} and run: {command}")
    return 1 if faulty else 0


def _verify_far(address: str, decode: bool) -> int:
    """Fetch every tar anew, one at a time, into a temporary folder, and check it there."""
    from ganinv.dataset.index import read_index, shard_faults
    from ganinv.dataset.remote import RemoteShards, Unreachable, fetch_set

    sets, refusals = [], []
    for part in ("", "/train", "/val", "/test"):
        try:
            sets.append(fetch_set(address + part, 1 << 62))
        except DataError as error:
            refusals.append(error)
    if not sets:
        raise refusals[0]
    faulty = 0
    for far in sets:
        index = read_index(far.folder)
        faults = []
        for number, name in enumerate(index.names):
            with tempfile.TemporaryDirectory() as temporary:
                place = Path(temporary) / "set"
                place.mkdir()
                for part in ("index.json", "offsets.npy"):
                    shutil.copy(far.folder / part, place / part)
                try:
                    os.close(RemoteShards(far.address, place, far.limit).open(index.entry(number)))
                    faults += shard_faults(place, number, decode) if decode else []
                except Unreachable as error:
                    faults.append(f"{name}: {error}")
        for fault in faults:
            print(f"BAD  {fault}", flush=True)
        faulty += bool(faults)
        state = f"{len(faults)} faults" if faults else "good"
        tars = len(index.names)
        print(f"{far.address}: {tars} tars, {len(index):,} images: {state}", flush=True)
    return 1 if faulty else 0


def _sets(folder: Path) -> list[Path]:
    if (folder / "index.json").is_file() or not folder.is_dir():
        return [folder]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    sets = [path for path in inside if (path / "index.json").is_file() or any(path.glob("*.tar"))]
    if not sets:
        raise DataError(
            explain(
                f"{folder} holds no set of shards",
                "a folder with index.json, or one whose subfolders have it",
                f"check the path; for a folder of images: ganinv shard {folder} --out OUT --size N",
            )
        )
    return sets


def _faults(index: Index, decode: bool, processes: int) -> list[str]:
    from tqdm import tqdm

    from ganinv.core.safe.io import sha256_file
    from ganinv.dataset.index import shard_faults
    from ganinv.dataset.shard import end_with_parent, process_context

    faults = []
    if sha256_file(index.folder / "offsets.npy") != index.raw.get("offsets_sha256"):
        faults.append(f"{index.folder}/offsets.npy: changed since it was written (sha256)")
    check = partial(shard_faults, index.folder, decode_images=decode)
    shards = range(len(index.names))
    with tqdm(total=len(index), desc=f"verifying {index.folder.name}", unit="img") as bar:
        if processes == 1 or len(index) < PARALLEL_FROM:
            for shard in shards:
                faults += check(shard)
                bar.update(index.raw["shards"][shard]["samples"])
            return faults
        workers = min(processes, len(shards))
        with ProcessPoolExecutor(workers, process_context(), end_with_parent) as pool:
            for shard, found in zip(shards, pool.map(check, shards), strict=True):
                faults += found
                bar.update(index.raw["shards"][shard]["samples"])
    return faults
