"""Train an inversion encoder (or a generator): compose, build, fit.

`python train.py ...` in a checkout and `ganinv train ...` from anywhere are this. torch is imported
(`_fitting.py`) once nothing of the command is left that can be refused without it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from ganinv.config.check import check_config
from ganinv.config.command import run_command
from ganinv.config.files import check_files
from ganinv.config.start import check_start
from ganinv.core.errors import USER_ERRORS
from ganinv.run.folder import open_run


def train(cfg: DictConfig) -> int:
    """One run, from its config to its last checkpoint; the signal that ended it early, or 0."""
    check_config(cfg)
    if "dry" in cfg:
        from ganinv.trainer.dry import dry_run

        dry_run(cfg)
        return 0
    run = open_run(cfg)
    if run.resume is None:
        check_start(cfg)
    check_files(cfg)
    from ganinv.cli._fitting import fit  # torch and Lightning, now that this can be a run

    return fit(cfg, run)


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
