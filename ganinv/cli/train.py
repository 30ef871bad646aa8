"""Train an inversion encoder (or a generator): compose, build, fit.

`python train.py ...` in a checkout and `ganinv train ...` from anywhere are this.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytorch_lightning as pl
from omegaconf import DictConfig

from ganinv.cli._models import log_best
from ganinv.config.build import build_data, build_method
from ganinv.config.check import check, check_config, check_optimizers
from ganinv.config.command import run_command
from ganinv.config.instantiate import instantiate
from ganinv.config.preset import log_preset
from ganinv.config.start import check_start
from ganinv.core.errors import USER_ERRORS
from ganinv.run.checkpoint import read_checkpoint
from ganinv.run.folder import finish, open_run, under_way
from ganinv.run.launch import rank_info
from ganinv.run.logs import rank_log
from ganinv.trainer.dry import dry_run
from ganinv.trainer.loggers import ended
from ganinv.trainer.watchdog import friendly_errors


def train(cfg: DictConfig) -> int:
    """One run, from its config to its last checkpoint; the signal that ended it early, or 0."""
    check_config(cfg)
    if "dry" in cfg:
        dry_run(cfg)
        return 0
    run = open_run(cfg)
    if run.resume is None:
        check_start(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    generator = instantiate(cfg.generator)
    data = build_data(cfg, instantiate(cfg.task))
    check(generator, data)
    method = build_method(cfg, generator, resumed=run.resume is not None)
    if run.resume is not None:
        checkpoint = read_checkpoint(run.resume)
        method.check_checkpoint(checkpoint)
        check_optimizers(method, checkpoint)
    loggers = instantiate(cfg.logger, _partial_=True)(
        run_dir=run.folder, run_id=run.wandb_id, hyperparameters=run.config, job_type="train"
    )
    trainer = instantiate(cfg.trainer, _partial_=True)(
        run_dir=run.folder, loggers=loggers, batch_size=data.batch_size
    )
    with under_way(run, method), rank_log(run.folder, rank_info().rank), ended(loggers, method):
        log_preset(cfg)
        with friendly_errors(trainer):
            trainer.fit(method, datamodule=data, ckpt_path=run.resume, weights_only=True)
        finish(run, trainer, method)
        log_best(run, loggers, method)
    return method.interrupted if rank_info().rank == 0 else 0


def run(cfg: DictConfig) -> None:
    """What a user can get wrong ends in one sentence, not in a traceback."""
    try:
        caught = train(cfg)
    except USER_ERRORS as error:
        sys.exit(f"\n{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted. The same command with resume=auto goes on where it can", flush=True)
        sys.exit(130)
    if caught:
        sys.exit(128 + caught)


def main(words: Sequence[str]) -> None:
    """A training as the words of a command line say."""
    run_command(run, "train", words)
