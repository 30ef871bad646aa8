"""Lightning data modules over shards: the user's own, and the embedded domain that draws itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from ganinv.core.errors import ConfigError, DataError, explain
from ganinv.core.seed import mix
from ganinv.dataset.avatars import draw
from ganinv.dataset.shard import (
    Index,
    Sample,
    encode,
    new_set,
    read_index,
    write_index,
    write_shard,
)
from ganinv.dataset.stream import Order, Positions, Shards, collate

SPLITS = ("train", "val", "test")
BAD_AT_LEAST = 8  # skipped samples below which no run is stopped


class ShardData(pl.LightningDataModule):
    """Images in `root/train`, `root/val` and `root/test`, each a set of shards with an index.

    Args:
        root: folder of the three sets.
        image_size: (height, width) in px that the sets must have.
        generator_resolutions: sides in px of the generators these images may be compared with;
            a larger generator image is averaged down.
        batch_size: images of one process in one step.
        num_workers: loading processes of each training process.
        seed: of the order and the mirroring.
        hflip: mirror half of the training images.
        window: shards that are shuffled together.
        max_bad_share: unreadable share of the training images at which the run stops.
    """

    def __init__(
        self,
        *,
        root: str,
        image_size: Sequence[int],
        generator_resolutions: Sequence[int],
        batch_size: int,
        num_workers: int,
        seed: int,
        hflip: bool,
        window: int,
        max_bad_share: float,
    ) -> None:
        super().__init__()
        if len(image_size) != 2 or batch_size < 1 or window < 1 or num_workers < 0:
            raise ConfigError(
                explain(
                    f"image_size={list(image_size)}, batch_size={batch_size}, window={window}, "
                    f"num_workers={num_workers}",
                    "[height, width], at least 1, at least 1, at least 0",
                    "correct the dataset's values",
                )
            )
        self.root = Path(root).expanduser()
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.generator_resolutions = tuple(generator_resolutions)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.hflip, self.window, self.max_bad_share = hflip, window, max_bad_share
        self.skipped, self.drawn = 0, 0

    def check(self) -> None:
        """Open every set there is, before anything is trained.

        Raises:
            DataError: a set is missing, incomplete, or has images of another size.
        """
        for split in SPLITS:
            self.open(split)

    def open(self, split: str) -> Index:
        """The index of `root/<split>`, checked against `image_size`."""
        index = read_index(self.root / split)
        if index.size != self.image_size:
            raise DataError(
                explain(
                    f"{index.folder} holds images of {index.size[0]} x {index.size[1]} px",
                    f"dataset.image_size={list(self.image_size)}",
                    "write the set again with that --size, or set dataset.image_size",
                )
            )
        return index

    def train_dataloader(self) -> DataLoader[Any]:
        """The endless stream of this rank, from the images already seen."""
        assert self.trainer is not None
        index = self.open("train")
        order = Order(index.counts, self.seed, self.window)
        shards = Shards(index, order, mix(self.seed, "hflip") if self.hflip else None, False)
        start = int(getattr(self.trainer.lightning_module, "images_seen", 0))
        world, rank = self.trainer.world_size, self.trainer.global_rank
        positions = Positions(start, self.batch_size, rank, world)
        return self._loader(shards, batch_sampler=positions)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation image once over all ranks, in the stored order."""
        return self._once("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Every test image once over all ranks, in the stored order."""
        return self._once("test")

    def _once(self, split: str) -> DataLoader[Any]:
        index = self.open(split)
        shards = Shards(index, Order(index.counts, None, 1), None, attributes=True)
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        mine = list(range(rank, len(shards), world))
        batches = [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]
        return self._loader(shards, batch_sampler=batches)

    def _loader(self, shards: Shards, batch_sampler: Any) -> DataLoader[Any]:
        return DataLoader(
            shards,
            batch_sampler=batch_sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> Any:
        """Count what was skipped; stop the run when it is too much.

        Raises:
            DataError: more than `max_bad_share` of the images could not be read.
        """
        self.drawn += len(batch["key"])
        for reason in batch.get("skipped", []):
            self.skipped += 1
            print(f"\nskipped an unreadable image: {reason}", flush=True)
        if self.skipped >= BAD_AT_LEAST and self.skipped > self.max_bad_share * self.drawn:
            raise DataError(
                explain(
                    f"{self.skipped} of {self.drawn} images unreadable, the last: "
                    f"{batch.get('skipped', ['-'])[-1]}",
                    f"at most a share of dataset.max_bad_share={self.max_bad_share}",
                    f"find them with: ganinv verify {self.root}/train",
                )
            )
        return batch

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Images move, still uint8; positions stay where the seeds are made."""
        moved = {k: batch[k].to(device, non_blocking=True) for k in ("image", "source") if k in batch}
        return {**batch, **moved}


def _draw_shard(
    number: int, *, folder: Path, first_seed: int, count: int, per_shard: int, resolution: int
) -> dict[str, Any]:
    low, high = number * per_shard, min(count, (number + 1) * per_shard)
    samples = []
    for seed in range(first_seed + low, first_seed + high):
        image, attributes = draw(seed, resolution)
        samples.append(Sample(f"{seed:08d}", encode(image, "png", 0), attributes))
    return write_shard(folder, number, "png", samples)


class AvatarData(ShardData):
    """The embedded domain: drawn once into a cache folder, then read like any other set.

    Args:
        cache: folder for drawn sets; each set of counts has a folder of its own in it.
        num_train: training faces, seeds 0, 1, 2, ...
        num_val: validation faces, seeds from 10,000,000.
        num_test: test faces, seeds from 20,000,000.
        image_size: see `ShardData`, also for the rest.
        generator_resolutions: see there.
        batch_size: see there.
        num_workers: see there.
        seed: see there; the faces themselves do not depend on it.
        hflip: see there.
        window: see there.
        max_bad_share: see there.
    """

    PER_SHARD = 500

    def __init__(
        self,
        *,
        cache: str,
        num_train: int,
        num_val: int,
        num_test: int,
        image_size: Sequence[int],
        generator_resolutions: Sequence[int],
        batch_size: int,
        num_workers: int,
        seed: int,
        hflip: bool,
        window: int,
        max_bad_share: float,
    ) -> None:
        if image_size[0] != image_size[1]:
            raise ConfigError(
                explain(f"image_size={list(image_size)} for avatars", "a square",
                        "set dataset.image_size=[64,64]")
            )
        counts = {"train": num_train, "val": num_val, "test": num_test}
        name = f"avatars{image_size[0]}-v1-{num_train}-{num_val}-{num_test}"
        super().__init__(
            root=str(Path(cache).expanduser() / name),
            image_size=image_size,
            generator_resolutions=generator_resolutions,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            hflip=hflip,
            window=window,
            max_bad_share=max_bad_share,
        )
        self.counts = counts

    def check(self) -> None:
        """Nothing to check before the faces are drawn."""

    def prepare_data(self) -> None:
        """Draw what is not in the cache yet (Lightning calls this on one rank only)."""
        for i, (split, count) in enumerate(self.counts.items()):
            if not (self.root / split / "index.json").is_file():
                self._draw(split, count, first_seed=10_000_000 * i)

    def _draw(self, split: str, count: int, first_seed: int) -> None:
        shards = -(-count // self.PER_SHARD)
        with new_set(self.root / split) as folder:
            work = partial(
                _draw_shard,
                folder=folder,
                first_seed=first_seed,
                count=count,
                per_shard=self.PER_SHARD,
                resolution=self.image_size[0],
            )
            workers = min(shards, os.cpu_count() or 1)
            with ProcessPoolExecutor(workers) as pool:
                label = f"drawing {count} {split} faces into {self.root}"
                done = list(tqdm(pool.map(work, range(shards)), label, total=shards, unit="shard"))
            origin = {"drawn": "ganinv avatars, version 1", "first_seed": first_seed}
            write_index(folder, self.image_size, "png", done, origin)
