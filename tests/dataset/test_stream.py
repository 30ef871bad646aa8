"""Kill and resume at any step, through Lightning, with and without workers; bad samples."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from ganinv.core.errors import DataError
from ganinv.dataset.module import ShardData
from tests.dataset.sets import cut, data_of, grey_set, spoil

COUNTS = [7, 1, 12, 5, 9]  # uneven, fewer shards than some tests have workers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, counts in {"train": COUNTS, "val": [5, 6], "test": [3]}.items():
        grey_set(tmp_path / split, counts)
    return tmp_path


def trained(data: ShardData, seen: int, batches: int, rank: int = 0, world: int = 1) -> list[Any]:
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank, world_size=world, lightning_module=SimpleNamespace(images_seen=seen)
    )
    return list(islice(data.train_dataloader(), batches))


def keys(batches: list[Any]) -> list[str]:
    return [key for batch in batches for key in batch["key"]]


class Recorder(pl.LightningModule):
    """Counts images like a method and notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.images_seen, self.noted = 0, []  # type: ignore[var-annotated]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.noted += zip(batch["key"], batch["image"].sum((1, 2, 3)).tolist(), strict=True)
        self.images_seen += len(batch["key"])
        return self.weight * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["images_seen"] = self.images_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.images_seen = checkpoint["images_seen"]


def fit(root: Path, steps: int, workers: int, resume: Path | None = None) -> tuple[Any, Any]:
    recorder = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=root,
    )
    data = data_of(root, num_workers=workers, hflip=True)
    trainer.fit(recorder, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer, recorder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("killed_at", [3, 9])  # 34 images: mid-epoch, and within the second epoch
def test_resume_in_lightning_is_the_same_run(root: Path, killed_at: int, workers: int) -> None:
    whole = fit(root, 20, 0)[1].noted
    trainer, first = fit(root, killed_at, workers)
    trainer.save_checkpoint(root / "last.ckpt")
    second = fit(root, 20, workers, root / "last.ckpt")[1]
    assert first.noted == whole[: 4 * killed_at]
    assert second.noted == whole[4 * killed_at :]
    assert len(whole) == 80


@pytest.mark.parametrize("workers", [2, 7])  # 7: more than shards
def test_workers_do_not_change_the_order(root: Path, workers: int) -> None:
    expected = trained(data_of(root), 10, 20)
    found = trained(data_of(root, num_workers=workers), 10, 20)
    assert keys(found) == keys(expected)
    assert [b["position"].tolist() for b in found] == [b["position"].tolist() for b in expected]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(found, expected, strict=True))


def test_batches_are_what_the_contract_says(root: Path) -> None:
    batch = trained(data_of(root), 6, 1)[0]
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (4, 3, 6, 8)
    assert batch["position"].tolist() == [6, 7, 8, 9] and "skipped" not in batch
    assert batch["image"][:, 0, 0, 3].tolist() == [int(key[1:]) for key in batch["key"]]


def test_mirroring_is_a_function_of_the_position(root: Path) -> None:
    def mirrored(seen: int, batches: int, **changes: Any) -> list[bool]:
        found = trained(data_of(root, hflip=True, **changes), seen, batches)
        grey = torch.cat([b["image"][:, 0, 0, :] for b in found])
        return (grey[:, 0] == grey[:, 3]).tolist()

    whole = mirrored(0, 50)
    assert mirrored(40, 40, num_workers=2) == whole[40:]
    assert 60 < sum(whole) < 140
    first, second = whole[:34], whole[34:68]
    assert first != second


def test_two_ranks_are_one_rank_of_twice_the_batch(root: Path) -> None:
    one = trained(data_of(root, batch_size=8), 0, 10)
    two = [trained(data_of(root), 0, 10, rank, 2) for rank in range(2)]
    for whole, *parts in zip(one, *two, strict=True):
        assert sorted(whole["key"]) == sorted(parts[0]["key"] + parts[1]["key"])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_gives_every_image_once(root: Path, world: int) -> None:
    found = []
    for rank in range(world):
        data = data_of(root)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
        for _ in range(2):  # a second validation is the same
            batches = list(data.val_dataloader())
        assert all(b["attributes"][0]["grey"] == int(b["key"][0][1:]) for b in batches)
        found += keys(batches)
    assert sorted(found) == [f"k{i:04d}" for i in range(11)]


def test_a_bad_image_is_replaced_named_and_counted(root: Path, caplog: Any) -> None:
    good = keys(trained(data_of(root), 0, 17))
    spoil(data_of(root).open("train"), 3)
    with caplog.at_level(logging.WARNING):
        found = [
            trained(data_of(root, num_workers=n, max_bad_fraction=0.03), 0, 17) for n in (0, 2)
        ]
    assert keys(found[0]) == keys(found[1])
    changed = [(a, b) for a, b in zip(good, keys(found[0]), strict=True) if a != b]
    assert [a for a, _ in changed] == ["k0003", "k0003"]  # once an epoch
    skipped = [reason for batch in found[0] for reason in batch.get("skipped", [])]
    assert len(skipped) == 2 and "000000.tar sample 3 (k0003.png): " in skipped[0]
    assert sum("k0003.png" in record.message for record in caplog.records) == 2  # once a loader


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_images_stop_the_run_and_are_named(root: Path, workers: int) -> None:
    for sample in (3, 20, 30):
        spoil(data_of(root).open("train"), sample)
    with pytest.raises(DataError) as caught:
        trained(data_of(root, num_workers=workers, max_bad_fraction=2 / 34), 0, 20)
    assert "3 unreadable images among 34 of" in str(caught.value)
    for name in ("k0003", "k0020", "k0030", "dataset.max_bad_fraction=", "ganinv verify"):
        assert name in str(caught.value)


def test_a_bad_validation_image_is_left_out_not_doubled(root: Path) -> None:
    for sample in (4, 5, 6, 7):  # all of the second batch
        spoil(data_of(root).open("val"), sample)
    data = data_of(root, max_bad_fraction=0.5)
    batches = list(data.val_dataloader())
    assert keys(batches) == [f"k{i:04d}" for i in (0, 1, 2, 3, 8, 9, 10)]


def test_a_tar_cut_in_half_is_not_silent(root: Path) -> None:
    cut(data_of(root).open("train"), 2)
    found = trained(data_of(root, max_bad_fraction=0.5), 0, 9)
    skipped = [reason for batch in found for reason in batch.get("skipped", [])]
    assert skipped and all("000002.tar" in reason for reason in skipped)
    assert any("the tar ends before it" in reason for reason in skipped)


def test_a_set_without_a_readable_image_stops(root: Path) -> None:
    index = data_of(root).open("train")
    for sample in range(34):
        spoil(index, sample)
    for workers in (0, 1):
        with pytest.raises(DataError) as caught:
            trained(data_of(root, num_workers=workers, max_bad_fraction=0.99), 0, 9)
        assert str(caught.value).startswith("32 unreadable samples in a row, the last 0000")


def test_the_device_gets_uint8_and_positions_stay(root: Path) -> None:
    batch = trained(data_of(root), 0, 1)[0]
    moved = data_of(root).transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved["image"].device.type == "meta" and moved["image"].dtype == torch.uint8
    assert moved["position"].device.type == "cpu"
