"""What an evaluation found, in the loggers that it was asked for (`logger=wandb`)."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ganinv.config.instantiate import instantiate
from ganinv.core.errors import RunError, explain
from ganinv.evaluation.report import error_map, grid, to_image
from ganinv.evaluation.result import Picture, Result
from ganinv.run.status import read_state
from ganinv.trainer.tables import PictureRow, log_evaluation


def log_result(cfg: DictConfig, result: Result, folder: Path) -> None:
    """Log the numbers, and the pictures of the report with what was measured of each.

    Args:
        cfg: of the evaluation; its `logger` may be absent.
        result: what was found.
        folder: of the report; the logger writes there, too.

    Raises:
        RunError: a logger did not take it; the same command tries again, without measuring again.
    """
    if cfg.get("logger") is None:
        return
    try:
        _log(cfg, result, folder)
    except Exception as error:  # of a server, or of a service in another process
        raise RunError(
            explain(f"the evaluation was not logged: {type(error).__name__}: {error}",
                    f"a logger that takes it; the report is in {folder}",
                    "the same command goes on from here; or leave logger out")
        ) from error  # fmt: skip


def _log(cfg: DictConfig, result: Result, folder: Path) -> None:
    facts: dict[str, Any] = {**result.facts, "images": result.images}
    facts["torch"] = str(facts["torch"])
    run = Path(cfg.checkpoint).resolve().parent.parent
    if (training := read_state(run).get("wandb_id")) is not None:
        facts |= {"training_run": run.name, "training_run_id": training}
    loggers = instantiate(cfg.logger, _partial_=True)(
        run_dir=folder, run_id=secrets.token_hex(6), hyperparameters=facts, job_type="evaluate"
    )
    values = {
        row.inversion: {**row.numbers, "seconds": row.seconds_per_image} for row in result.rows
    }
    pictures = [
        _row(row.inversion, picture)
        for row in result.rows
        for picture in {picture.key: picture for picture in [*row.first, *row.worst]}.values()
    ]
    grids = {row.inversion: grid(row.first) for row in result.rows}
    step = round(1000 * (result.facts["kimg"] or 0))
    log_evaluation(loggers, values, pictures, grids, step)


def _row(inversion: str, picture: Picture) -> PictureRow:
    images = {} if picture.source is None else {"input": to_image(picture.source)}
    error = error_map(picture.image, picture.reconstruction)
    images |= {
        "image": to_image(picture.image),
        "reconstruction": to_image(picture.reconstruction),
        "error": to_image(error),
    }
    return PictureRow(picture.key, inversion, images, picture.values)
