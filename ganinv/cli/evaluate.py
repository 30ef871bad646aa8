"""Evaluate a trained encoder: compose, invert, measure, print the table, write the report.

`python evaluate.py ...` in a checkout and `ganinv evaluate ...` from anywhere are this.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ganinv.cli._logged_result import log_result
from ganinv.config.check import check_config
from ganinv.config.command import run_command
from ganinv.core.errors import USER_ERRORS
from ganinv.evaluation.measure import Evaluation
from ganinv.evaluation.output import begin, check_options, join, write
from ganinv.evaluation.ranks import carry_out, ranks_of
from ganinv.run.disk import disk_errors


def evaluate(cfg: DictConfig) -> None:
    """One checkpoint on one split, on any number of ranks."""
    check_config(cfg)
    OmegaConf.resolve(cfg)
    check_options(cfg)
    ranks = ranks_of(cfg.trainer.devices, cfg.trainer.num_nodes)
    job = Evaluation(cfg)
    measurement = job.open(ranks)
    work, todo = begin(measurement, ranks)
    carry_out(work, todo, job, ranks, measurement)
    if ranks.rank == 0:
        result = join(work, measurement, ranks)
        write(result, work.folder)
        log_result(cfg, result, work.folder)
        work.end()


def run(cfg: DictConfig) -> None:
    """What a user can get wrong ends in one sentence, not in a traceback."""
    try:
        with disk_errors(Path(), "make room, or make it readable and writable; then try again"):
            evaluate(cfg)
    except USER_ERRORS as error:
        sys.exit(f"\n{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where it was", file=sys.stderr)
        sys.exit(130)


def main(words: Sequence[str]) -> None:
    """An evaluation as the words of a command line say."""
    run_command(run, "evaluate", words)
