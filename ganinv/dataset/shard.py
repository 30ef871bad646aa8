"""Shards: webdataset tars with an index that makes every image readable at random.

A set is a folder:

    index.json              what the set is: image size, origin, and of each shard its number of
                            samples, bytes and sha256
    000000.tar              `{key}.png|jpg|webp` and `{key}.json` of each sample, a webdataset tar
    000000.members.json     keys, and offset and size of each image and json inside the tar

The tar alone is enough for webdataset; the index is what makes an exact order, an exact resume and a
check for truncation possible.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from webdataset import TarWriter

from ganinv.core.errors import DataError, explain
from ganinv.core.io import sha256_file, write_atomic

FORMAT = "ganinv-shards"
SAVE: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "subsampling": 0},
    "webp": {"format": "WEBP"},
}


def encode(image: np.ndarray, extension: str, quality: int) -> bytes:
    """uint8 [H,W,3] RGB -> the bytes of an image file.

    Args:
        image: the pixels.
        extension: png, jpg or webp.
        quality: 1-100 for jpg and webp; png is lossless.
    """
    buffer = io.BytesIO()
    options = dict(SAVE[extension])
    if extension != "png":
        options["quality"] = quality
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()


@dataclass
class Sample:
    """One image on its way into a shard."""

    key: str
    image: bytes
    attributes: dict[str, Any] = field(default_factory=dict)


def write_shard(folder: Path, number: int, extension: str, samples: Iterable[Sample]) -> dict:
    """Write one tar and its member table; returns its entry for the index.

    Args:
        folder: where.
        number: number of the shard, its name.
        extension: of the image files.
        samples: what goes in.
    """
    name = f"{number:06d}.tar"
    with TarWriter(str(folder / name)) as writer:
        for sample in samples:
            writer.write(
                {"__key__": sample.key, extension: sample.image, "json": sample.attributes}
            )
    table = _members(folder / name, extension)
    write_atomic(folder / f"{number:06d}.members.json", json.dumps(table).encode())
    path = folder / name
    return {
        "name": name,
        "samples": len(table["key"]),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }


def _members(path: Path, extension: str) -> dict[str, list]:
    found: dict[str, dict[str, list[int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            found.setdefault(key, {})[kind] = [member.offset_data, member.size]
    return {
        "key": list(found),
        "image": [parts[extension] for parts in found.values()],
        "json": [parts["json"] for parts in found.values()],
    }


def write_index(
    folder: Path, size: tuple[int, int], extension: str, shards: list[dict], origin: dict[str, Any]
) -> None:
    """Write `index.json`; with it the set is complete.

    Args:
        folder: the set.
        size: (height, width) of every image, px.
        extension: of the image files.
        shards: the entries that `write_shard` returned.
        origin: how the set came to be.
    """
    index = {
        "format": FORMAT,
        "version": 1,
        "image": {"height": size[0], "width": size[1], "extension": extension},
        "samples": sum(shard["samples"] for shard in shards),
        "origin": origin,
        "shards": sorted(shards, key=lambda shard: shard["name"]),
    }
    write_atomic(folder / "index.json", json.dumps(index, indent=1).encode())


@contextmanager
def new_set(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well.

    Raises:
        DataError: `folder` is there already and not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            explain(
                f"{folder}, which is not empty",
                "a new folder",
                "choose another one, or remove it yourself; nothing was overwritten",
            )
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@dataclass
class Index:
    """A set of shards, opened."""

    folder: Path
    size: tuple[int, int]  # (height, width) px
    extension: str
    names: list[str]
    counts: list[int]  # samples of each shard
    raw: dict[str, Any]

    @property
    def samples(self) -> int:
        """Images in the set."""
        return sum(self.counts)


def read_index(folder: str | Path) -> Index:
    """Open a set of shards.

    Raises:
        DataError: no folder, no index, an index of another kind, or a shard that is missing.
    """
    folder = Path(folder).expanduser()
    path = folder / "index.json"
    if not folder.is_dir():
        raise DataError(
            explain(f"no folder {folder}", "a folder of shards", "write one: ganinv shard --help")
        )
    if not path.is_file():
        raise DataError(
            explain(
                f"{folder} has no index.json",
                "a folder that `ganinv shard` wrote",
                f"write one from your images: ganinv shard {folder} --out OUT --size 256",
            )
        )
    try:
        raw = json.loads(path.read_text())
        assert raw["format"] == FORMAT and raw["version"] == 1
        image, shards = raw["image"], raw["shards"]
        index = Index(
            folder=folder,
            size=(image["height"], image["width"]),
            extension=image["extension"],
            names=[shard["name"] for shard in shards],
            counts=[shard["samples"] for shard in shards],
            raw=raw,
        )
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError(
            explain(f"{path} is not an index of shards ({error})", "one that `ganinv shard` wrote",
                    "write the set again")
        ) from error
    missing = [
        name
        for tar in index.names
        for name in (tar, tar.replace(".tar", ".members.json"))
        if not (folder / name).is_file()
    ]
    if missing:
        raise DataError(
            explain(
                f"{folder} lacks {', '.join(missing[:3])} ({len(missing)} files in all)",
                f"the {len(index.names)} shards of its index",
                f"copy the missing files again; `ganinv verify {folder}` checks all",
            )
        )
    return index


def verify(folder: str | Path, decode: bool = True) -> Iterator[str]:
    """Every fault of a set, one sentence each: truncated or changed tars, undecodable images.

    Args:
        folder: the set.
        decode: also decode every image.

    Raises:
        DataError: the set cannot be opened at all.
    """
    index = read_index(folder)
    for entry in index.raw["shards"]:
        path = index.folder / entry["name"]
        size = path.stat().st_size
        if size != entry["bytes"]:
            verb = "truncated" if size < entry["bytes"] else "longer than written"
            yield f"{path}: {verb}: {size} bytes instead of {entry['bytes']}"
        elif sha256_file(path) != entry["sha256"]:
            yield f"{path}: changed: sha256 differs from the index"
        if decode:
            yield from _undecodable(index, path)


def _undecodable(index: Index, path: Path) -> Iterator[str]:
    table = json.loads(path.with_name(path.name.replace(".tar", ".members.json")).read_text())
    with open(path, "rb") as file:
        for key, (offset, size) in zip(table["key"], table["image"], strict=True):
            file.seek(offset)
            try:
                image = Image.open(io.BytesIO(file.read(size)))
                image.load()
            except Exception as error:  # PIL raises many kinds; all mean a bad image
                yield f"{path}: image {key} cannot be decoded: {error}"
                continue
            if (image.height, image.width) != index.size:
                yield (
                    f"{path}: image {key} is {image.height} x {image.width} px, "
                    f"the index says {index.size[0]} x {index.size[1]}"
                )
