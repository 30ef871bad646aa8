"""Images drawn from the generator itself: no disk, no end.

The dataset yields places in the stream; the method, which holds the generator, draws the image of
each place: z is a function of (seed, split, position). Ranks, workers and resuming behave as with
shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from ganinv.core.errors import ConfigError, DataError, explain
from ganinv.core.interface import Batch, Recipe, SourceKind
from ganinv.dataset.order import Positions, eval_batches
from ganinv.dataset.region import check_regions


class Places(Dataset[int]):
    """Position -> position."""

    def __getitem__(self, position: int) -> int:
        """The position."""
        return position


class SyntheticData(pl.LightningDataModule):
    """Samples of G.

    Args:
        batch_size: samples of one process in one step.
        num_val: samples of a validation.
        num_test: samples of the test split.
        psi: truncation, 1 for none.
        cutoff: layers of wp that are truncated.
        image_size: (H, W) in px that the samples are averaged down to.
        regions: name -> (top, bottom, left, right) px of what the losses may look at closely.
        source: what the task reads beside each image: nothing, for samples have nothing.
        classes: of label maps, as the task counts them.

    Raises:
        ConfigError: a value that cannot be.
    """

    generator_resolutions: None = None  # any

    def __init__(
        self,
        *,
        batch_size: int,
        num_val: int,
        num_test: int,
        psi: float,
        cutoff: int,
        image_size: Sequence[int],
        regions: Mapping[str, Sequence[int] | None],
        source: SourceKind | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        if source is not None:
            raise ConfigError(
                explain(
                    f"a task that reads {source} sources with dataset=synthetic",
                    "a task on images alone",
                    "set task=image, super_resolution or frontalisation, or another dataset",
                )
            )
        for name, value in {"batch_size": batch_size, "num_val": num_val}.items():
            if value < 1:
                raise ConfigError(
                    explain(f"dataset.{name}={value}", "at least 1", f"set dataset.{name}")
                )
        self.batch_size, self.psi, self.cutoff = batch_size, psi, cutoff
        self.image_size = (int(image_size[0]), int(image_size[1]))
        check_regions(regions, image_size)
        self.counts = {"val": num_val, "test": num_test}

    def check(self, splits: Sequence[str] = ("train", "val")) -> None:
        """Nothing lies on disk."""

    def count(self, split: str) -> int:
        """Samples of val or test.

        Raises:
            DataError: the training split, which has no end.
        """
        if split not in self.counts:
            raise DataError(
                explain(f"split={split}", "val or test: train is endless", "choose one")
            )
        return self.counts[split]

    def train_dataloader(self) -> DataLoader[Any]:
        """The endless stream of this rank, from the images already seen."""
        seen = int(getattr(getattr(self.trainer, "lightning_module", None), "images_seen", 0))
        rank, world = self._place()
        places = Positions(start=seen, batch_size=self.batch_size, rank=rank, world_size=world)
        return self._loader("train", places)

    def eval_dataloader(
        self, split: str, batches: list[list[int]] | None = None
    ) -> DataLoader[Any]:
        """The asked batches of sample numbers; without them, every sample once over all ranks."""
        if batches is None:
            batches = eval_batches(self.count(split), self.batch_size, *self._place())
        return self._loader(split, batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation samples."""
        return self.eval_dataloader("val")

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(self, split: str, places: Iterable[list[int]]) -> DataLoader[Any]:
        recipe: Recipe = {
            "split": split,
            "psi": self.psi,
            "cutoff": self.cutoff,
            "image_size": self.image_size,
        }

        def collate(positions: list[int]) -> Batch:
            keys = [f"{split}-{position:09d}" for position in positions]
            return {"key": keys, "position": torch.tensor(positions), "synthetic": recipe}

        return DataLoader(Places(), batch_sampler=places, collate_fn=collate)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Positions stay where the seeds are made."""
        return batch
