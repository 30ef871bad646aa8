"""Checkpoints: written whole or not at all, found again, and opened for evaluation."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ganinv.core.errors import WeightsError, WeightsMissing
from ganinv.core.io import load_tensors, write_atomic
from ganinv.method.base import Method
from ganinv.trainer.instantiate import make


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, syncs and renames; reads with torch's restricted reader only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save atomically."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(path, buffer.getvalue())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        """Load tensors and plain values; a file that needs more is refused."""
        return read_checkpoint(path)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A ganinv training checkpoint as a dict, on the CPU.

    Raises:
        WeightsMissing: no such file.
        WeightsError: unreadable, or not written by ganinv.
    """
    if not Path(path).is_file():
        raise WeightsMissing(
            f"no checkpoint at {path}; expected a .ckpt file that train.py wrote. To fix: pass "
            "checkpoint=runs/<run>/checkpoints/best.ckpt"
        )
    checkpoint = load_tensors(path)
    if not isinstance(checkpoint, dict) or "ganinv" not in checkpoint:
        raise WeightsError(
            f"{path} is not a ganinv checkpoint (no 'ganinv' entry); expected a .ckpt file that "
            "train.py wrote"
        )
    return checkpoint


@dataclass
class Trained:
    """A trained method, ready to invert images."""

    cfg: DictConfig  # resolved config of the training run
    method: Method  # in eval mode, on the asked device
    images_seen: int
    identity: dict[str, Any]  # generator_source, generator_sha256, version


def load_trained(
    path: str | os.PathLike[str], device: str = "cpu", generator_weights: str | None = None
) -> Trained:
    """Rebuild the method of a checkpoint: its config, its generator and its trained weights; the
    losses, which only training needs, are left out.

    Args:
        path: the checkpoint.
        device: where the method goes.
        generator_weights: the generator's file, where it is no longer at the path of the config.

    Raises:
        WeightsMissing: the checkpoint, or a weights file its config names, is not there.
        WeightsError: unreadable, of another kind, or trained on another generator.
    """
    from ganinv.trainer.build import build_method  # build also writes checkpoints

    checkpoint = read_checkpoint(path)
    cfg = OmegaConf.create(checkpoint["ganinv"]["config"])
    assert isinstance(cfg, DictConfig)
    if generator_weights is not None:
        cfg.generator.weights = str(generator_weights)
    with _without_start():
        method = build_method(cfg, make(cfg.generator), training=False)
    method.on_load_checkpoint(checkpoint)
    method.load_state_dict(checkpoint["state_dict"], strict=False)
    method.eval().requires_grad_(False).to(device)
    identity = {k: v for k, v in checkpoint["ganinv"].items() if k != "config"}
    return Trained(cfg, method, checkpoint["images_seen"], identity)


@contextmanager
def _without_start() -> Iterator[None]:
    """What networks would have started from is of no interest: the checkpoint fills them."""
    log = logging.getLogger("ganinv.backbone")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
