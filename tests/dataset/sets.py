"""Small sets of shards: sample i is a flat image of grey i, so that pixels name the sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ganinv.dataset.codec import Extension, encode
from ganinv.dataset.index import Index
from ganinv.dataset.module import ShardData
from ganinv.dataset.shard import Plan, Sample, write_set

SIZE = (6, 8)


class Grey:
    """The `make` of a plan with shards of given, uneven sizes."""

    def __init__(self, counts: list[int], extension: Extension) -> None:
        self.counts, self.extension = counts, extension

    def __call__(self, number: int) -> Iterator[Sample]:
        for place in range(self.counts[number]):
            i = sum(self.counts[:number]) + place
            image = np.full((*SIZE, 3), i % 256, dtype=np.uint8)
            image[:, 0] = 255 - i % 256  # the left column, to see a mirrored image
            data = encode(image, self.extension, 95)
            yield Sample(f"k{i:04d}", data, {"attributes": {"grey": i}})


def grey_set(folder: Path, counts: list[int], extension: Extension = "png") -> Index:
    """Write a set of sum(counts) samples."""
    plan = Plan(
        images=sum(counts),
        shards=len(counts),
        make=Grey(counts, extension),
        size=SIZE,
        extension=extension,
        parameters={"counts": counts},
        origin={"command": "grey_set"},
    )
    return write_set(folder, plan, 1, "test")


def data_of(root: Path, **changes: Any) -> ShardData:
    """A data module over `root` with small values."""
    values: dict[str, Any] = {
        "root": str(root),
        "image_size": SIZE,
        "generator_resolutions": [8],
        "batch_size": 4,
        "num_workers": 0,
        "seed": 5,
        "hflip": False,
        "window": 2,
        "max_bad_fraction": 0.0,
        "cache_gib": 1,
        "regions": {"face": None},
    }
    return ShardData(**(values | changes))


def spoil(index: Index, sample: int) -> None:
    """Overwrite the bytes of one image inside its tar."""
    shard = index.shard_of(sample)
    offset, size = (int(x) for x in index.offsets[sample, :2])
    with open(index.folder / index.names[shard], "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)


def cut(index: Index, shard: int) -> None:
    """Cut a tar in half, and say so in the index: as if it had been written that way."""
    path = index.folder / index.names[shard]
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    raw = json.loads((index.folder / "index.json").read_text())
    raw["shards"][shard]["bytes"] = len(half)
    (index.folder / "index.json").write_text(json.dumps(raw))
