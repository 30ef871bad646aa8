"""Evaluate a trained encoder: compose, invert, measure, print the table, write the report.

`python evaluate.py ...` in a checkout and `ganinv evaluate ...` from anywhere are this. torch is
imported (`_measuring.py`) once nothing of the command is left that can be refused without it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ganinv.config.check import check_config
from ganinv.config.command import run_command
from ganinv.core.errors import USER_ERRORS
from ganinv.evaluation.options import check_options
from ganinv.run.disk import disk_errors


def evaluate(cfg: DictConfig) -> None:
    """One checkpoint on one split, on any number of ranks."""
    check_config(cfg)
    OmegaConf.resolve(cfg)
    check_options(cfg)
    from ganinv.cli._measuring import measure  # torch, now that this can be a measurement

    measure(cfg)


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
