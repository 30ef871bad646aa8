"""An evaluation whose command has been looked at: open, invert, measure, write, log."""

from __future__ import annotations

from omegaconf import DictConfig

from ganinv.cli._logged_result import log_result
from ganinv.evaluation.measure import Evaluation
from ganinv.evaluation.output import begin, join, write
from ganinv.evaluation.ranks import carry_out, ranks_of


def measure(cfg: DictConfig) -> None:
    """Measure, on any number of ranks.

    Args:
        cfg: the composed config, resolved and checked.

    Raises:
        ConfigError, DataError, WeightsError, WeightsMissing: what is known only when the file and
            the data are opened.
        RunError: nothing could be written, or a logger did not take it.
    """
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
