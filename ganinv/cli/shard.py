"""`ganinv shard`: a folder, a zip file or an LSUN database of images to sets of shards."""

from __future__ import annotations

import argparse
import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.cli._align_options import add_align, align_settings, aligned, detector_with_align
from ganinv.core.command import entry
from ganinv.core.errors import ConfigError, DataError, explain

if TYPE_CHECKING:
    from ganinv.core.interface import SourceKind
    from ganinv.dataset.codec import Extension
    from ganinv.dataset.index import Index
    from ganinv.dataset.shard import Plan
    from ganinv.dataset.source import Source

EXAMPLES = """examples:
  ganinv shard ffhq.zip --out data/ffhq256 --size 256 --val 1000 --test 1000
  ganinv shard celeba_hq_test/ --out data/celebahq256 --size 256 --split test
  ganinv shard holiday.zip --align --out data/faces256 --size 256 --val 50
  ganinv shard lsun/cars --out data/cars --size 192x256 --format webp
  ganinv shard faces/ --source masks/ --kind labels --out data/masks256 --size 256 --test 1000

OUT/train, OUT/val and OUT/test each become a set of webdataset tars with an index. A set that
exists is never touched: the same command finds it done, another command is refused. An interrupted
command goes on where it was when it is run again.
"""
LISTED = 10  # failures printed; index.json has them all


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "shard",
        help="write shards from a folder, a zip file or an LSUN database of images",
        description="Resize images once and write them as webdataset shards with an index.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder (and its subfolders), .zip, or LMDB")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sets")
    parser.add_argument(
        "--size", required=True, metavar="N|HxW", help="of every image in px, e.g. 256 or 192x256"
    )
    parser.add_argument(
        "--fit",
        choices=("crop", "pad"),
        default="crop",
        help="crop: centre crop to the aspect of --size (default); pad: whole image, on black",
    )
    parser.add_argument(
        "--format", choices=("jpg", "png", "webp"), default="jpg", help="default jpg"
    )
    parser.add_argument("--quality", type=int, default=95, help="of jpg and webp, default 95")
    parser.add_argument(
        "--source",
        dest="beside",
        type=Path,
        metavar="SOURCES",
        help="of a paired task: folder, zip or LMDB with an input of the same name for each image",
    )
    parser.add_argument(
        "--kind", choices=("rgb", "grey", "labels"),
        help="what SOURCES are: images, drawings in grey, or maps of classes (resized by nearest)",
    )  # fmt: skip
    parser.add_argument("--shard-size", type=int, default=1000, help="images a tar, default 1000")
    parser.add_argument("--val", type=int, default=0, metavar="N", help="hold out N for OUT/val")
    parser.add_argument("--test", type=int, default=0, metavar="N", help="hold out N for OUT/test")
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="train",
        help="where the images go that are not held out, default train",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses what is held out, default 0")
    parser.add_argument("--processes", type=int, metavar="N", help="default: all cores")
    add_align(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the sets."""
    size = _size(args.size)
    _check(args)
    detector = detector_with_align(args)
    from ganinv.dataset.index import read_index
    from ganinv.dataset.shard import cores, write_set
    from ganinv.dataset.source import open_source

    source = aligned(open_source(args.source), detector, size)
    items = source.items()
    if not items:
        raise DataError(
            explain(
                f"{args.source} holds no images",
                "png, jpg, webp, bmp, tiff or ppm files",
                "check the path; a database needs its data.mdb in the folder",
            )
        )
    beside = _beside(items, args)
    parts = _split(items, args)
    _say(f"{args.source}: {len(items):,} images")
    for name, plan in _plans(source, items, parts, size, args, beside).items():
        folder = args.out / name
        there = (folder / "index.json").is_file()
        try:
            index = write_set(folder, plan, args.processes or cores(), f"writing {name}")
        except KeyboardInterrupt:
            _say("\nstopped; finished shards are kept: run the same command again to go on")
            raise
        _report(index, there)
    _say(f"Check:  ganinv verify {shlex.quote(str(args.out))}")
    if "train" in parts:
        edges = f"[{size[0]},{size[1]}]"
        out = shlex.quote(str(args.out))
        data = f"dataset=shards dataset.root={out} dataset.image_size={edges}"
        data += _task(read_index(args.out / "train"))
        _say(f"Train:  {entry('train')} {data} generator=...")
    return 0


def _task(index: Index) -> str:
    """The options of the task that reads a set's sources."""
    if index.source is None:
        return ""
    classes = index.source.classes
    return {
        "rgb": " task=translation",
        "grey": " task=sketch encoder.input_nc=1",
        "labels": f" task=segmentation task.classes={classes} encoder.input_nc={classes}",
    }[index.source.kind]


@dataclass(frozen=True)
class Beside:
    """The sources of a paired set, and which belongs to which image."""

    source: Source
    names: dict[str, str]
    sha256: str  # of their names and sizes


def _beside(items: list[tuple[str, str]], args: argparse.Namespace) -> Beside | None:
    if args.beside is None:
        return None
    from ganinv.dataset.source import open_source, pairs_of

    source = open_source(args.beside)
    found = source.items()
    names = pairs_of([name for name, _ in items], [name for name, _ in found])
    return Beside(source, names, hashlib.sha256(repr(found).encode()).hexdigest())


def _say(text: str) -> None:
    print(text, flush=True)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(explain(f"--size {text}", "N or HEIGHTxWIDTH in px", "e.g. --size 256"))
    return int(parts[0]), int(parts[-1])


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.quality <= 100:
        raise ConfigError(explain(f"--quality {args.quality}", "1 to 100", "e.g. --quality 95"))
    for name in ("shard_size", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            option = name.replace("_", "-")
            raise ConfigError(explain(f"--{option} {value}", "at least 1", "raise it"))
    if (args.beside is None) != (args.kind is None):
        raise ConfigError(explain("--source or --kind alone", "both, or none", "add the other one"))
    if args.align and args.beside is not None:
        raise ConfigError(
            explain("--align with --source", "one of them: a pair must stay in place",
                    "align neither, or both, with ganinv align --landmarks")
        )  # fmt: skip
    for name in ("val", "test"):
        count = getattr(args, name)
        if count < 0 or (count and args.split == name):
            raise ConfigError(
                explain(
                    f"--{name} {count} with --split {args.split}",
                    "a number of held-out images, with the rest in another split",
                    f"leave out --{name}, or --split",
                )
            )


def _split(items: list[tuple[str, str]], args: argparse.Namespace) -> dict[str, list[int]]:
    """Split name -> sorted image numbers. Held-out images are drawn by --seed."""
    from ganinv.dataset.order import permutation

    held_out = {name: getattr(args, name) for name in ("val", "test") if getattr(args, name)}
    if sum(held_out.values()) >= len(items):
        raise ConfigError(
            explain(
                f"{sum(held_out.values())} images held out of {len(items)}",
                f"fewer, so that some remain for {args.split}",
                "lower --val or --test",
            )
        )
    drawn = permutation(len(items), args.seed, "held out").tolist()
    parts = {}
    for name, count in held_out.items():
        parts[name], drawn = sorted(drawn[:count]), drawn[count:]
    return {args.split: sorted(drawn), **parts}


def _plans(
    source: Source,
    items: list[tuple[str, str]],
    parts: dict[str, list[int]],
    size: tuple[int, int],
    args: argparse.Namespace,
    beside: Beside | None,
) -> dict[str, Plan]:
    from ganinv.dataset.shard import Plan
    from ganinv.dataset.source import Resized, keys_of

    names = [name for name, _ in items]
    keys = keys_of(names)
    content = hashlib.sha256(repr(items).encode()).hexdigest()
    parameters = {
        "source_sha256": content,
        "size": list(size),
        "fit": args.fit,
        "format": args.format,
        "quality": None if args.format == "png" else args.quality,
        "shard_size": args.shard_size,
        "held_out": [args.val, args.test, args.seed if args.val or args.test else None],
    }
    paired: tuple[SourceKind, Extension] | None = None
    if beside is not None:
        paired = args.kind, args.format if args.kind == "rgb" else "png"
        parameters |= {"sources_sha256": beside.sha256, "kind": args.kind}
    if (align := align_settings(source)) is not None:
        parameters["align"] = align
    origin = {
        "source": str(args.source),
        "command": shlex.join(["ganinv", *args.arguments]),
        "seed": args.seed,
    }
    plans = {}
    for split, numbers in parts.items():
        chosen = [(names[i], keys[i]) for i in numbers]
        make = Resized(
            source=source,
            items=chosen,
            per_shard=args.shard_size,
            size=size,
            fit=args.fit,
            extension=args.format,
            quality=args.quality,
            beside=None if beside is None else (beside.source, args.kind, beside.names),
        )
        plans[split] = Plan(
            images=len(chosen),
            shards=-(-len(chosen) // args.shard_size),
            make=make,
            size=size,
            extension=args.format,
            parameters=parameters | {"split": split},
            origin=origin,
            source=paired,
        )
    return plans


def _report(index: Index, there: bool) -> None:
    failed = index.raw["failed"]
    size = sum(shard["bytes"] for shard in index.raw["shards"]) / 2**20
    word = "already written" if there else "written"
    _say(f"{index.folder}: {len(index):,} images, {len(index.names)} tars, {size:,.1f} MiB, {word}")
    if failed:
        _say(f"could not be taken: {len(failed)} (index.json lists all)")
        for name, reason in failed[:LISTED]:
            _say(f"  {name}: {reason}")
