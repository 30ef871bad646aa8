"""A training whose command has been looked at: build its parts, fit, say where the results are."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from ganinv.cli._models import log_best
from ganinv.config.build import build_data, build_method
from ganinv.config.check import check, check_optimizers
from ganinv.config.instantiate import instantiate
from ganinv.config.preset import log_preset
from ganinv.method.base import Method
from ganinv.run.folder import Run, finish, under_way
from ganinv.run.launch import agree, rank_info
from ganinv.run.logs import rank_log
from ganinv.trainer.checkpoint_io import AtomicCheckpointIO
from ganinv.trainer.loggers import ended
from ganinv.trainer.watchdog import friendly_errors


def fit(cfg: DictConfig, run: Run) -> int:
    """Train.

    Args:
        cfg: the composed config, checked.
        run: where it is written and what it goes on from.

    Returns:
        The signal that ended it early, or 0.

    Raises:
        ConfigError, DataError, WeightsError, WeightsMissing: what is known only when the generator,
            the data and the checkpoint are read.
    """
    pl.seed_everything(cfg.seed, verbose=False)
    generator = instantiate(cfg.generator)
    data = build_data(cfg, instantiate(cfg.task))
    check(generator, data)
    method = build_method(cfg, generator, resumed=run.resume is not None)
    if run.resume is not None:
        agree(lambda: check_resumed(run, method), "checked")
    loggers = instantiate(cfg.logger, _partial_=True)(
        run_dir=run.folder, run_id=run.wandb_id, hyperparameters=run.config, job_type="train"
    )
    trainer = instantiate(cfg.trainer, _partial_=True)(
        run_dir=run.folder, loggers=loggers, batch_size=data.batch_size
    )
    hand_over(trainer, run)
    with under_way(run, method), rank_log(run.folder, rank_info().rank), ended(loggers, method):
        log_preset(cfg)
        with friendly_errors(trainer):
            trainer.fit(method, datamodule=data, ckpt_path=run.resume, weights_only=True)
        finish(run, trainer, method)
        log_best(run, loggers, method)
    return method.interrupted if rank_info().rank == 0 else 0


def check_resumed(run: Run, method: Method) -> dict[str, Any]:
    """Refuse, on rank 0, a checkpoint of another method, generator or optimizer: its names and
    plain values are looked at, and none of its tensors is read.

    Raises:
        WeightsError: naming what does not fit.
    """
    assert run.held is not None
    outline = run.held.outline()
    method.check_checkpoint(outline)
    check_optimizers(method, outline)
    return {}


def hand_over(trainer: pl.Trainer, run: Run) -> None:
    """Give the checkpoint in memory to whoever loads it, and keep no hold of it."""
    files = trainer.strategy.checkpoint_io
    assert isinstance(files, AtomicCheckpointIO)
    files.held, run.held = run.held, None
