"""Lightning data modules over shards: the user's own, and the built-in domain that draws itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ganinv.core.errors import ConfigError, DataError, explain
from ganinv.core.interface import SourceKind
from ganinv.core.seed import derive_seed
from ganinv.dataset import avatars
from ganinv.dataset.codec import encode
from ganinv.dataset.index import Index, check_files, read_index
from ganinv.dataset.order import Order, Positions, eval_batches
from ganinv.dataset.place import is_remote
from ganinv.dataset.region import check_regions
from ganinv.dataset.remote import fetch_set
from ganinv.dataset.shard import Plan, Sample, cores, write_set
from ganinv.dataset.stream import EvalSet, Loader, TrainSet


class ShardData(pl.LightningDataModule):
    """Images in `root/train`, `root/val` and `root/test`, each a set of shards with its index.

    Training is an endless stream that starts at the method's `images_seen`; validation and test
    give every image once over all ranks. Batches are `stream.ShardBatch`.

    Args:
        root: folder of the three sets, or its address (`remote`): https://... or s3://...
        image_size: (H, W) in px that the sets must have.
        generator_resolutions: sides in px of the generators whose images may be compared with
            these; larger ones are averaged down.
        batch_size: images of one process in one step.
        num_workers: loading processes of each training process.
        seed: of the order and of the mirroring.
        hflip: mirror half of the training images.
        window: shards that are shuffled together.
        max_bad_fraction: share of unreadable images at which the run stops.
        cache_gib: size of the local cache for tars from afar.
        regions: name -> (top, bottom, left, right) px of what the losses may look at closely, or
            None where there is none: `face` of aligned faces.
        source: what the task reads beside each image, None for nothing.
        classes: of label maps, as the task counts them.

    Raises:
        ConfigError: a value that cannot be.
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
        max_bad_fraction: float,
        cache_gib: float,
        regions: Mapping[str, Sequence[int] | None],
        source: SourceKind | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.source, self.classes = source, classes
        least = {
            "batch_size": (batch_size, 1),
            "window": (window, 1),
            "num_workers": (num_workers, 0),
        }
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise _bad_setting(f"{name}={value}", f"a whole number of at least {lowest}", name)
        if len(image_size) != 2 or min(image_size) < 1:
            raise _bad_setting(
                f"image_size={list(image_size)}", "[height, width] in px", "image_size"
            )
        if not 0 <= max_bad_fraction < 1:
            raise _bad_setting(
                f"max_bad_fraction={max_bad_fraction}", "a share in [0, 1)", "max_bad_fraction"
            )
        check_regions(regions, image_size)
        self.address = root.rstrip("/") if is_remote(root) else None
        self.root, self.cache_bytes = Path(root).expanduser(), round(cache_gib * 2**30)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.generator_resolutions = tuple(int(side) for side in generator_resolutions)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.hflip, self.window, self.max_bad_fraction = hflip, window, max_bad_fraction

    def check(self, splits: Sequence[str] = ("train", "val")) -> None:
        """Look at indexes and file sizes, before anything is read.

        Raises:
            DataError: a set is missing or incomplete, or its images have another size.
        """
        for split in splits:
            self.open(split)

    def open(self, split: str) -> Index:
        """The checked index of a split.

        Raises:
            DataError: see `check`.
        """
        if self.address is None:
            index = read_index(self.root / split)
        else:
            far = fetch_set(f"{self.address}/{split}", self.cache_bytes)
            index = replace(read_index(far.folder), far=far)
        if index.size != self.image_size:
            raise DataError(
                explain(
                    f"{index.folder} holds images of {index.size[0]} x {index.size[1]} px "
                    "(height x width)",
                    f"{self.image_size[0]} x {self.image_size[1]} px (dataset.image_size)",
                    "choose the dataset's config of that size, or write the set again: ganinv "
                    f"shard SOURCE --out OUT --size {self.image_size[0]}x{self.image_size[1]}",
                )
            )
        if self.source is not None:
            self._check_source(index)
        check_files(index)
        return index

    def _check_source(self, index: Index) -> None:
        stored = index.source
        option = f"--source FOLDER --kind {self.source}"
        if stored is None or stored.kind != self.source:
            has = f"{stored.kind} sources" if stored else "images alone"
            raise DataError(
                explain(
                    f"{index.folder} holds {has}, and the task reads {self.source} sources",
                    "a paired set of that kind",
                    f"write one: ganinv shard TARGETS {option} --out OUT --size N; or task=image",
                )
            )
        if self.classes is not None and stored.classes > self.classes:
            raise DataError(
                explain(
                    f"{index.folder} has labels up to {stored.classes - 1}",
                    f"at most {self.classes - 1} (task.classes={self.classes})",
                    f"set task.classes={stored.classes}",
                )
            )

    def train_dataloader(self) -> Loader:
        """The endless stream of this rank, from the images already seen."""
        index = self.open("train")
        rank, world_size = self._place()
        positions = Positions(
            start=int(getattr(getattr(self.trainer, "lightning_module", None), "images_seen", 0)),
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
        )
        hflip_seed = derive_seed(self.seed, "hflip") if self.hflip else None
        order = Order(index.starts, self.seed, self.window)
        train = TrainSet(index, order, hflip_seed, paired=self.source is not None)
        return self._loader(train, positions)

    def val_dataloader(self) -> Loader:
        """Every validation image once over all ranks, in stored order."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> Loader:
        """Every test image once over all ranks, in stored order."""
        return self.eval_dataloader("test")

    def count(self, split: str) -> int:
        """Images of a split.

        Raises:
            DataError: see `check`.
        """
        return len(self.open(split))

    def eval_dataloader(self, split: str, batches: list[list[int]] | None = None) -> Loader:
        """The asked batches, by the images' numbers in the stored order of a split; without them,
        every image once over all ranks."""
        index = self.open(split)
        if batches is None:
            batches = eval_batches(len(index), self.batch_size, *self._place())
        return self._loader(EvalSet(index, self.source is not None), batches)

    def _place(self) -> tuple[int, int]:
        """This rank and the number of ranks, as the trainer knows them: under srun the environment
        does not name them as torchrun's does.
        """
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(self, dataset: TrainSet | EvalSet, batches: Any) -> Loader:
        strategy = getattr(self.trainer, "strategy", None)
        return Loader(
            dataset,
            batches=batches,
            samples=-(-len(dataset.reader.index) // self._place()[1]),
            max_bad_fraction=self.max_bad_fraction,
            num_workers=self.num_workers,
            pin_memory=strategy is not None and strategy.root_device.type == "cuda",
        )

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Images move, still uint8; positions stay where the seeds are made."""
        moved = {
            name: batch[name].to(device, non_blocking=True)
            for name in ("image", "source")
            if name in batch
        }
        return batch | moved


def _bad_setting(given: str, expected: str, name: str) -> ConfigError:
    return ConfigError(explain(f"dataset.{given}", expected, f"set dataset.{name}=..."))


@dataclass(frozen=True)
class AvatarWriter:
    """The `make` of a plan: drawn faces of successive seeds.

    Attributes:
        first_seed: of the set.
        count: faces.
        per_shard: faces of a tar.
        resolution: px.
        labels: with the map of the face's parts beside each.
        move: of every face.
    """

    first_seed: int
    count: int
    per_shard: int
    resolution: int
    labels: bool = False
    move: avatars.Move = avatars.STILL

    def __call__(self, number: int) -> Iterator[Sample]:
        """The faces of one shard."""
        first = number * self.per_shard
        for place in range(first, min(self.count, first + self.per_shard)):
            seed = self.first_seed + place
            image, attributes = avatars.draw(seed, self.resolution, self.move)
            record = {"seed": seed, "attributes": attributes}
            key, data = f"{seed:08d}", encode(image, "png", 0)
            if self.labels:
                parts = avatars.labels(seed, self.resolution, self.move)
                yield Sample(key, data, record, encode(parts, "png", 0), int(parts.max()))
            else:
                yield Sample(key, data, record)


class AvatarData(ShardData):
    """The built-in domain: drawn once into a cache folder, then read like any other set.

    Args:
        cache: folder for drawn sets; other numbers or sizes of faces get another folder in it.
        num_train: training faces, of the seeds 0, 1, 2, ...
        num_val: validation faces, of the seeds from 10,000,000.
        num_test: test faces, of the seeds from 20,000,000.
        image_size, generator_resolutions, batch_size, num_workers, hflip, window,
            max_bad_fraction, regions, classes: as `ShardData`.
        seed: of the order of the images; the faces themselves do not depend on it.
        source: None, or labels for maps of the face's parts (`avatars.PARTS`).
    """

    PER_SHARD = 500
    SEEDS = 10_000_000  # between the first seeds of two splits
    move = avatars.STILL  # of every face; see `moved.py`

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
        max_bad_fraction: float,
        regions: Mapping[str, Sequence[int] | None],
        source: SourceKind | None = None,
        classes: int | None = None,
    ) -> None:
        if source not in (None, "labels"):
            raise ConfigError(
                explain(
                    f"a task that reads {source} sources with dataset=avatars64",
                    "labels, the only thing that is drawn beside the faces",
                    "set task=segmentation, or task=image",
                )
            )
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        for split, count in self.counts.items():
            if not 1 <= count <= self.SEEDS:
                raise _bad_setting(
                    f"num_{split}={count}", f"1 to {self.SEEDS:,} faces", f"num_{split}"
                )
        if len(set(image_size)) != 1:
            raise _bad_setting(
                f"image_size={list(image_size)}", "a square for avatars", "image_size"
            )
        pair = f"-{source}" if source else ""
        pair += "" if self.move == avatars.STILL else "-{down:g}-{right:g}-{angle:g}".format(
            **vars(self.move))  # fmt: skip
        drawn = "-".join(str(part) for part in (*self.counts.values(), f"{self._drawing():08x}"))
        super().__init__(
            root=str(Path(cache).expanduser() / f"avatars{image_size[0]}{pair}-{drawn}"),
            image_size=image_size,
            generator_resolutions=generator_resolutions,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            hflip=hflip,
            window=window,
            max_bad_fraction=max_bad_fraction,
            cache_gib=0,
            regions=regions,
            source=source,
            classes=classes,
        )

    @staticmethod
    def _drawing() -> int:
        """A number that changes when the same seed may give another face."""
        packages = [version(name) for name in ("dicebear-core", "dicebear-styles", "resvg-py")]
        return derive_seed(avatars.VERSION, *packages) >> 31

    def check(self, splits: Sequence[str] = ("train", "val")) -> None:
        """Nothing to look at before `prepare_data`."""

    def prepare_data(self) -> None:
        """Draw what is not in the cache yet; Lightning calls this on one process of a node.

        Raises:
            DataError: the cache cannot be written.
        """
        splits = enumerate(self.counts.items())
        missing = [x for x in splits if not (self.root / x[1][0] / "index.json").is_file()]
        if missing:
            print(f"Drawing the built-in domain, once, into {self.root}", flush=True)
        for number, (split, count) in missing:
            try:
                self._draw(split, count, number * self.SEEDS)
            except DataError as error:
                if not isinstance(error.__cause__, PermissionError):
                    raise
                raise DataError(
                    explain(
                        f"no permission to write {self.root}",
                        "a folder for the drawn faces",
                        "set dataset.cache=..., or the environment's GANINV_CACHE",
                    )
                ) from error

    def _draw(self, split: str, count: int, first_seed: int) -> None:
        labels = self.source == "labels"
        side, moved = self.image_size[0], self.move != avatars.STILL
        make = AvatarWriter(first_seed, count, self.PER_SHARD, side, labels, self.move)
        plan = Plan(
            images=count,
            shards=-(-count // self.PER_SHARD),
            make=make,
            size=self.image_size,
            extension="png",
            parameters={
                "first_seed": first_seed,
                "count": count,
                "resolution": self.image_size[0],
                "drawing": self._drawing(),
                **({"parts": avatars.PARTS} if labels else {}),
                **({"move": vars(self.move)} if moved else {}),
            },
            origin={
                "source": "drawn: DiceBear lorelei (CC0 1.0), ganinv.dataset.avatars",
                "command": f"dataset=avatars64{'_moved' * moved} dataset.num_{split}={count}",
                "seed": first_seed,
            },
            source=("labels", "png") if labels else None,
        )
        write_set(self.root / split, plan, cores(), f"{split} faces")
