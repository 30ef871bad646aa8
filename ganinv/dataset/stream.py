"""From positions to batches: the endless training stream and the finite validation set.

A training sample that cannot be read is replaced by another one, chosen by its position alone; a
validation sample that cannot be read is left out. Both are named in the batch's `skipped`, logged
once, and counted: too many stop the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NotRequired

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ganinv.core.errors import DataError, explain
from ganinv.core.interface import Batch
from ganinv.core.seed import derive_seed
from ganinv.dataset.index import BadSample, Index, Reader
from ganinv.dataset.order import Order

log = logging.getLogger(__name__)

REPLACEMENTS = 32  # unreadable samples in a row after which the whole set is refused


class ShardBatch(Batch):
    """A batch from shards."""

    skipped: NotRequired[list[str]]  # unreadable samples: which and why
    attributes: NotRequired[list[dict[str, Any]]]  # what is known of each image (avatars)


class TrainSet(Dataset[dict[str, Any]]):
    """The endless stream by position.

    Args:
        index: the set.
        order: position -> sample.
        hflip_seed: decides for each position whether its image is mirrored; None mirrors none.
        paired: also read what is stored beside each image; it is mirrored with it.
    """

    def __init__(
        self, index: Index, order: Order, hflip_seed: int | None, paired: bool = False
    ) -> None:
        self.order, self.hflip_seed, self.paired = order, hflip_seed, paired
        self.reader = Reader(index, open_files=2 * order.window + 2)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The image at a position.

        Raises:
            DataError: so many samples in a row are unreadable that the set must be broken.
        """
        skipped: list[str] = []
        sample = self.order(position)
        for attempt in range(REPLACEMENTS):
            try:
                key, image = self.reader.image(sample)
                pair = {"source": self.reader.source(sample)} if self.paired else {}
            except BadSample as error:
                skipped.append(str(error))
                sample = derive_seed(self.order.seed, "replacement", position, attempt) % len(
                    self.order
                )
                continue
            if self.hflip_seed is not None and derive_seed(self.hflip_seed, position) & 1:
                image = image.flip(-1)
                pair = {name: part.flip(-1) for name, part in pair.items()}
            return {"key": key, "image": image, "position": position, "skipped": skipped} | pair
        raise DataError(
            explain(
                f"{len(skipped)} unreadable samples in a row, the last {skipped[-1]}",
                "a readable set",
                f"ganinv verify {self.reader.index.folder}",
            )
        )


class EvalSet(Dataset[dict[str, Any]]):
    """A finite set by sample number, with what is known of each image.

    Args:
        index: the set.
        paired: also read what is stored beside each image.
    """

    def __init__(self, index: Index, paired: bool = False) -> None:
        self.reader, self.paired = Reader(index, open_files=4), paired

    def __len__(self) -> int:
        """Samples in the set."""
        return len(self.reader.index)

    def __getitem__(self, sample: int) -> dict[str, Any]:
        """An image and its attributes, or only the reason why it cannot be read."""
        try:
            key, image = self.reader.image(sample)
            record = self.reader.json(sample)
            pair = {"source": self.reader.source(sample)} if self.paired else {}
        except BadSample as error:
            return {"skipped": [str(error)]}
        found = {"key": key, "image": image, "position": sample, "skipped": []}
        return found | pair | {"attributes": record.get("attributes")}


def collate(samples: list[dict[str, Any]]) -> ShardBatch:
    """Samples to a batch; those without an image only leave their reason."""
    good = [sample for sample in samples if "image" in sample]
    batch: ShardBatch = {
        "image": stacked([s["image"] for s in good]) if good else torch.empty(0),
        "key": [sample["key"] for sample in good],
        "position": torch.tensor([sample["position"] for sample in good], dtype=torch.int64),
    }
    if good and "source" in good[0]:
        batch["source"] = stacked([sample["source"] for sample in good])
    if good and good[0].get("attributes") is not None:
        batch["attributes"] = [sample["attributes"] for sample in good]
    if skipped := [reason for sample in samples for reason in sample["skipped"]]:
        batch["skipped"] = skipped
    return batch


def stacked(images: list[Tensor]) -> Tensor:
    """[C,H,W] each -> [B,C,H,W], in memory pixel by pixel (channels_last), as they were decoded."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


class Loader(DataLoader[Any]):
    """A DataLoader that counts unreadable samples, whichever worker met them.

    Args:
        dataset: a `TrainSet` or an `EvalSet`.
        batches: its batch sampler.
        samples: of an epoch of this rank; the limit is a share of them, anew in each epoch.
        max_bad_fraction: the largest share.
        num_workers: loading processes.
        pin_memory: for a copy to the GPU that does not wait.
    """

    def __init__(
        self,
        dataset: TrainSet | EvalSet,
        *,
        batches: Any,
        samples: int,
        max_bad_fraction: float,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
        )
        self.folder = dataset.reader.index.folder
        self.epoch_size = len(dataset.reader.index)
        self.samples, self.max_bad_fraction = samples, max_bad_fraction
        self.bad: dict[str, tuple[int, str]] = {}  # sample -> epoch when last met, and reason

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches; one whose every image is unreadable is left out.

        Raises:
            DataError: more than `max_bad_fraction` of the samples are unreadable.
        """
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except DataError as error:  # from a worker it comes wrapped in its traceback
                raise DataError(str(error).strip().rsplit("DataError: ", 1)[-1]) from None
            if "skipped" in batch:
                self._count(batch)
            if batch["key"]:
                yield batch

    def _count(self, batch: ShardBatch) -> None:
        position = int(batch["position"][0]) if batch["key"] else 0
        epoch = position // self.epoch_size
        for reason in batch["skipped"]:
            name = reason.split(":", 1)[0]
            if name not in self.bad:
                log.warning("skipped an unreadable image in %s/%s", self.folder, reason)
            self.bad[name] = epoch, reason
        now = [reason for last, reason in self.bad.values() if last == epoch]
        if len(now) > self.max_bad_fraction * self.samples:
            more = f" and {len(now) - 5} more" if len(now) > 5 else ""
            raise DataError(
                explain(
                    f"{len(now)} unreadable images among {self.samples} of {self.folder}: "
                    f"{'; '.join(now[:5])}{more}",
                    f"at most a share of dataset.max_bad_fraction={self.max_bad_fraction}",
                    f"find all with `ganinv verify {self.folder}` and write the set again, or "
                    "raise dataset.max_bad_fraction",
                )
            )
