"""The stream: which image comes when, as a pure function of (seed, images seen).

Position p counts the images that all ranks together have seen before it. Epoch e = p // n permutes
the shards by (seed, e) and then the images inside each window of `window` shards, so that a node
reads a few shards at a time. Rank r of N takes positions start + r + N j. Nothing is remembered, so a
run that is killed anywhere goes on with exactly the images it had not seen, with any number of
workers and ranks.

A sample that cannot be decoded is replaced by the next position's, and named in `skipped`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.io import ImageReadMode, decode_image

from ganinv.core.errors import DataError
from ganinv.core.seed import mix
from ganinv.dataset.shard import Index

MAX_REPLACEMENTS = 64  # consecutive bad samples after which the set as a whole is refused


class Order:
    """position -> (shard, sample); one epoch's permutation is kept.

    Args:
        counts: samples of each shard.
        seed: seed of the permutations; None keeps the stored order.
        window: shards that are shuffled together.
    """

    def __init__(self, counts: list[int], seed: int | None, window: int) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.seed, self.window = seed, window
        self._epoch, self._flat = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Images in an epoch."""
        return int(self.starts[-1])

    def flat(self, epoch: int) -> np.ndarray:
        """The epoch's order: indices into all samples of all shards, [n]."""
        if epoch == self._epoch:
            return self._flat
        if self.seed is None:
            order = np.arange(len(self))
        else:
            rng = np.random.default_rng(mix(self.seed, "order", epoch))
            shards = rng.permutation(len(self.counts))
            parts = []
            for i in range(0, len(shards), self.window):
                window = shards[i : i + self.window]
                ids = [np.arange(self.starts[s], self.starts[s + 1]) for s in window]
                parts.append(rng.permutation(np.concatenate(ids)))
            order = np.concatenate(parts)
        self._epoch, self._flat = epoch, order
        return order

    def at(self, position: int) -> tuple[int, int]:
        """(shard, sample in it) of a position of the endless stream."""
        index = int(self.flat(position // len(self))[position % len(self)])
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return shard, index - int(self.starts[shard])


class Positions(Sampler[list[int]]):
    """Endless batches of positions of one rank, from `start` on.

    Args:
        start: images already seen by all ranks.
        batch_size: images a rank draws each step.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, start: int, batch_size: int, rank: int, world_size: int) -> None:
        self.start, self.batch_size = start, batch_size
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        """start + rank + world_size * (0, 1, 2, ...) in pieces of batch_size."""
        position = self.start + self.rank
        while True:
            yield [position + self.world_size * j for j in range(self.batch_size)]
            position += self.world_size * self.batch_size


class Shards(Dataset[dict[str, Any]]):
    """Random access to a set of shards by stream position; decodes to uint8 [3,H,W].

    Args:
        index: the opened set.
        order: position -> sample.
        hflip_seed: seed of the mirroring of each position with probability one half; None for no
            mirroring.
        attributes: also return each sample's json.
    """

    def __init__(
        self, index: Index, order: Order, hflip_seed: int | None, attributes: bool
    ) -> None:
        self.index, self.order = index, order
        self.hflip_seed, self.attributes = hflip_seed, attributes
        self._tables: dict[int, dict[str, list]] = {}
        self._files: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """File descriptors do not travel to workers."""
        return {**self.__dict__, "_files": {}, "_tables": {}}

    def __len__(self) -> int:
        """Images in an epoch."""
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The sample at a stream position, or the next readable one."""
        skipped = []
        for step in range(MAX_REPLACEMENTS):
            shard, sample = self.order.at(position + step)
            try:
                found = self._read(shard, sample)
            except (RuntimeError, ValueError, OSError) as error:
                name = f"{self.index.names[shard]} sample {sample}"
                skipped.append(f"{name}: {str(error).splitlines()[0]}")
                continue
            if self.hflip_seed is not None and mix(self.hflip_seed, "hflip", position) & 1:
                found["image"] = found["image"].flip(-1)
            return {**found, "position": position, "skipped": skipped}
        raise DataError(
            f"{MAX_REPLACEMENTS} unreadable images in a row, the first: {skipped[0]}; expected a "
            f"sound set. To fix: ganinv verify {self.index.folder}"
        )

    def _read(self, shard: int, sample: int) -> dict[str, Any]:
        table, file = self._open(shard)
        offset, size = table["image"][sample]
        data = os.pread(file, size, offset)
        if len(data) < size:
            raise OSError(f"the tar ends {size - len(data)} bytes early")
        pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        image = decode_image(pixels, mode=ImageReadMode.RGB)
        if tuple(image.shape[1:]) != self.index.size:
            raise ValueError(f"{tuple(image.shape[1:])} px instead of {self.index.size}")
        found: dict[str, Any] = {"image": image, "key": table["key"][sample]}
        if self.attributes:
            offset, size = table["json"][sample]
            found["attributes"] = json.loads(os.pread(file, size, offset))
        return found

    def _open(self, shard: int) -> tuple[dict[str, list], int]:
        if shard not in self._files:
            path = self.index.folder / self.index.names[shard]
            members = path.with_name(path.name.replace(".tar", ".members.json"))
            self._tables[shard] = json.loads(members.read_text())
            self._files[shard] = os.open(path, os.O_RDONLY)
        return self._tables[shard], self._files[shard]


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> a batch as `core.interface.Batch`, with `skipped` when something was."""
    images: Tensor = torch.stack([sample["image"] for sample in samples])
    batch: dict[str, Any] = {
        "image": images,
        "key": [sample["key"] for sample in samples],
        "position": torch.tensor([sample["position"] for sample in samples]),
    }
    if "attributes" in samples[0]:
        batch["attributes"] = [sample["attributes"] for sample in samples]
    if skipped := [reason for sample in samples for reason in sample["skipped"]]:
        batch["skipped"] = skipped
    return batch
