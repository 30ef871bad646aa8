"""Evaluate a trained encoder: compose, invert, measure, print the table, write the report.

python evaluate.py checkpoint=runs/NAME/checkpoints/best.ckpt
python evaluate.py checkpoint=... metric=[distortion,lpips] split=val limit=100
python evaluate.py checkpoint=... trainer.devices=2     two processes; -1: one on each GPU
python evaluate.py --help                               every group and key

A command that was stopped goes on where it was when it is typed again.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

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
        write(join(work, measurement, ranks), work.folder)
        work.end()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Entry point: what a user can get wrong ends in one sentence, not in a traceback."""
    try:
        with disk_errors(Path(), "make room, or make it readable and writable; then try again"):
            evaluate(cfg)
    except USER_ERRORS as error:
        sys.exit(f"\n{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where it was", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run_command(main)
