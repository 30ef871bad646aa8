"""`ganinv align`: photos to faces cropped as FFHQ's were.

OUT/images/<name>.png   the crop of a photo's face; of several <name>-0.png, the largest, and on
OUT/align.json          of every photo what happened, its faces, their points, quads and files
OUT/contact_sheet.png   some of the photos with what was found in them, to look at

Photos are taken in batches of consecutive names. A finished batch is a file in OUT/.parts, so that
the same command goes on where it was stopped; which process takes a batch changes nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganinv.cli._align_batch import Job, One, align_batch, too_little_memory
from ganinv.cli._align_options import add_options, detector_of
from ganinv.core.errors import ConfigError, DataError, RunError, explain

EXAMPLES = """examples:
  ganinv align photos --out faces
  ganinv align holiday.zip --out faces --size 256 --largest
  ganinv align photos --out faces --landmarks points.json

PHOTOS is an image, a folder with its subfolders, or a zip file. Look at OUT/contact_sheet.png, then
give OUT/images to ganinv shard, or to ganinv invert. The exit code is 1 when no photo gave a face.
"""
LISTED = 10  # failures printed; align.json has all
KINDS = ("aligned", "no face", "unreadable")  # what may happen to a photo
SMALLEST, LARGEST = 16, 4096  # px of a crop


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "align",
        help="crop the faces of photos as FFHQ's were",
        description="Find the faces in photos and crop them as FFHQ's were: eyes and mouth where "
        "generators and encoders trained on FFHQ or CelebA-HQ expect them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--size", type=int, default=1024, metavar="N", help="of the crops in px, default 1024"
    )
    parser.add_argument("--largest", action="store_true", help="one face a photo: the largest")
    add_options(parser)
    parser.add_argument("--processes", type=int, metavar="N", help="default: all cores")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Align."""
    source = _open(args)
    detector = detector_of(args)
    from ganinv.dataset.faces import LandmarksFile
    from ganinv.dataset.shard import cores

    items = source.items()
    if not items:
        raise DataError(
            explain(f"{args.photos} holds no images", "png, jpg, webp, bmp, tiff or ppm files",
                    "check the path")
        )  # fmt: skip
    names = [name for name, _ in items]
    if isinstance(detector, LandmarksFile):
        detector.check_names(names)
    job = Job(source, detector, args.out, names, args.size, args.largest)
    settings = {
        "images_sha256": hashlib.sha256(repr(items).encode()).hexdigest(),
        "size": job.size,
        "largest": job.largest,
        **detector.settings,
    }
    if not _done(job, settings):
        with _alone(job):
            todo = [number for number in range(job.batches) if not job.part(number).is_file()]
            if len(todo) < job.batches:
                print(f"going on after {job.batches - len(todo)} of {job.batches} batches")
            _work(job, todo, args.processes or cores())
            _finish(job, settings)
    from ganinv.core.network import refused_as_malformed

    with refused_as_malformed(job.out / "align.json", "results"):
        return _report(job)


def _open(args: argparse.Namespace) -> Any:
    """The source of the photos, after the options were looked at."""
    if not SMALLEST <= args.size <= LARGEST:
        raise ConfigError(
            explain(f"--size {args.size}", f"{SMALLEST} to {LARGEST} px", "e.g. --size 1024")
        )
    if args.processes is not None and args.processes < 1:
        raise ConfigError(explain(f"--processes {args.processes}", "at least 1", "raise it"))
    if args.photos.is_dir() and args.out.resolve().is_relative_to(args.photos.resolve()):
        raise ConfigError(
            explain(f"--out {args.out} inside of {args.photos}",
                    "a folder elsewhere, or the crops would be photos of the next run",
                    "choose another --out")
        )  # fmt: skip
    from ganinv.dataset.source import SUFFIXES, open_source

    if args.photos.is_file() and args.photos.suffix.lower() in SUFFIXES:
        return One(args.photos)
    return open_source(args.photos)


def _done(job: Job, settings: dict[str, Any]) -> bool:
    """Whether all is there; else OUT is made ready.

    Raises:
        ConfigError: OUT belongs to another command.
    """
    from ganinv.core.safe.io import write_atomic

    finished, begun = job.out / "align.json", job.parts / "settings.json"
    there = next((path for path in (finished, begun) if path.is_file()), None)
    if there is None and job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise ConfigError(
            explain(f"--out {job.out}, which holds other files", "a new or empty folder",
                    "choose another; nothing was overwritten")
        )  # fmt: skip
    if there is None:
        write_atomic(begun, json.dumps(settings, indent=1).encode())
        return False
    try:
        content = json.loads(there.read_text())
        theirs = content["settings"] if there == finished else content
        keys = sorted(settings.keys() | theirs.keys())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            explain(f"{there}, which cannot be read ({error})", "what ganinv align has written",
                    "choose another --out")
        ) from error  # fmt: skip
    different = [key for key in keys if theirs.get(key) != settings.get(key)]
    if different:
        raise ConfigError(
            explain(f"--out {job.out}, begun with other {', '.join(different)}",
                    "the same command, which goes on, or a new folder",
                    "choose another --out; nothing was overwritten")
        )  # fmt: skip
    return there == finished


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """One process at a time writes OUT.

    Raises:
        ConfigError: another one does.
    """
    with open(job.parts / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                explain(f"--out {job.out}, which another ganinv align is writing", "one at a time",
                        "wait for it, or choose another --out")
            ) from None  # fmt: skip
        yield


# ------------------------------------------------------------------ working


_job: list[Job] = []  # of a working process; sent once, when it starts


def _start(job: Job) -> None:
    _job.append(job)
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C: the parent does the talking


def _one(number: int) -> int:
    return align_batch(_job[0], number)


def _counts(job: Job, todo: list[int], processes: int) -> Iterator[int]:
    """Photos of each batch, as they are finished."""
    from ganinv.dataset.shard import process_context

    if min(processes, len(todo)) < 2:
        yield from (align_batch(job, number) for number in todo)
        return
    pool = ProcessPoolExecutor(min(processes, len(todo)), process_context(), _start, (job,))
    try:
        yield from pool.map(_one, todo)
    finally:
        pool.shutdown(cancel_futures=True)


def _work(job: Job, todo: list[int], processes: int) -> None:
    from tqdm import tqdm

    try:
        total = sum(len(job.batch(number)) for number in todo)
        with tqdm(total=total, desc="aligning", unit="img") as bar:
            for count in _counts(job, todo, processes):
                bar.update(count)
    except KeyboardInterrupt:
        print("\nstopped; finished batches are kept: run the same command again to go on")
        raise
    except BrokenProcessPool as error:
        raise too_little_memory() from error
    except OSError as error:
        raise RunError(
            explain(f"{job.out}: {error}", "a disk with room, where one may write",
                    "make room, then run the same command again: it goes on")
        ) from error  # fmt: skip


# ------------------------------------------------------------------ what is said


def _finish(job: Job, settings: dict[str, Any]) -> None:
    """Join the parts, then forget them."""
    import numpy as np
    from PIL import Image

    from ganinv.cli._contact_sheet import sheet
    from ganinv.core.safe.io import write_atomic
    from ganinv.dataset.codec import encode

    records = []
    for number in range(job.batches):
        records += json.loads(job.part(number).read_text())
    strips: list[Image.Image] = [
        Image.open(path) for i in sorted(job.shown) if (path := job.strip(i)).is_file()
    ]
    write_atomic(job.out / "contact_sheet.png", encode(np.asarray(sheet(strips)), "png", 100))
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    head = json.dumps({"settings": settings, "counts": _counted(records)}, indent=1)
    text = f'{head[:-2]},\n "images": [\n{lines}\n]\n}}\n'
    write_atomic(job.out / "align.json", text.encode())
    shutil.rmtree(job.parts)


def _counted(records: list[dict[str, Any]]) -> dict[str, int]:
    happened = [record["happened"] for record in records]
    return {
        "photos": len(records),
        "faces": sum(len(record["faces"]) for record in records),
        **{kind: happened.count(kind) for kind in KINDS},
    }


def _report(job: Job) -> int:
    """Say what align.json says; the exit code."""
    content = json.loads((job.out / "align.json").read_text())
    counts, records = content["counts"], content["images"]
    print(
        f"{job.out}: {counts['faces']:,} faces in {counts['aligned']:,} of {counts['photos']:,} "
        "photos; images/, align.json, contact_sheet.png"
    )
    sides = [face["side"] for record in records for face in record["faces"]]
    if enlarged := sum(side < job.size for side in sides):
        print(f"enlarged: {enlarged} crops have fewer than {job.size} px in the photo")
    if more := sum(record.get("not_taken", 0) for record in records):
        print(f"not taken: {more} smaller faces (--largest)")
    for kind, words in (("no face", "without a face"), ("unreadable", "could not be read")):
        of_kind = [record for record in records if record["happened"] == kind]
        if of_kind:
            more = " (align.json lists all)" if len(of_kind) > LISTED else ""
            print(f"{words}: {len(of_kind)}{more}")
        for record in of_kind[:LISTED]:
            print(f"  {record['source']}: {record['reason']}")
    if not counts["faces"]:
        print("no photo gave a face: try --min-score 0, or --landmarks with another detector's")
    return 0 if counts["faces"] else 1
