"""A training run's checkpoint, rebuilt for evaluation: config, generator and trained weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.method.base import Method
from ganinv.run.checkpoint import read_checkpoint


@dataclass
class Trained:
    """A trained method, ready to invert images."""

    cfg: DictConfig  # resolved config of the training run
    method: Method  # in eval mode, on the asked device
    images_seen: int
    provenance: dict[str, Any]  # generator_source, generator_sha256, version


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
    checkpoint = read_checkpoint(path)
    cfg = OmegaConf.create(checkpoint["ganinv"]["config"])
    assert isinstance(cfg, DictConfig)
    if generator_weights is not None:
        cfg.generator.weights = str(generator_weights)
    with _without_start():
        method = build_method(cfg, instantiate(cfg.generator), training=False)
    method.on_load_checkpoint(checkpoint)
    method.load_state_dict(checkpoint["state_dict"], strict=False)
    method.eval().requires_grad_(False).to(device)
    provenance = {k: v for k, v in checkpoint["ganinv"].items() if k != "config"}
    return Trained(cfg, method, checkpoint["images_seen"], provenance)


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
