"""What a training made, for the loggers that keep models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ganinv.cli.export import write
from ganinv.core.errors import USER_ERRORS
from ganinv.method.base import Method
from ganinv.run.folder import Run
from ganinv.run.launch import rank_info
from ganinv.run.status import read_state
from ganinv.trainer.artifacts import log_outputs

log = logging.getLogger(__name__)


def log_best(run: Run, loggers: list[Any], method: Method) -> None:
    """The best checkpoint, and its bundle, written beside it, where its method has one, for W&B to
    keep. Nothing of an interrupted run: it goes on.

    Args:
        run: that ended.
        loggers: its loggers.
        method: that was trained.
    """
    asked = any(getattr(logger, "keeps_models", False) for logger in loggers)
    if rank_info().rank > 0 or method.interrupted or not asked:
        return
    checkpoint = run.best()
    files = {"checkpoint": [checkpoint, run.folder / "config.yaml"]}
    if (bundle := _bundle(checkpoint)) is not None:
        files["bundle"] = [bundle]
    state = read_state(run.folder)
    facts: dict[str, Any] = {
        "run": run.folder.name,
        "method": type(method).__name__,
        "monitor": method.monitor,
        "best": state.get("best"),
        "kimg": method.images_seen / 1000,
        "generator_sha256": method.provenance.get("generator_sha256"),
    }
    log_outputs(loggers, run.config["name"], files, facts)


def _bundle(checkpoint: Path) -> Path | None:
    from ganinv.evaluation.open import open_model  # half the package, for few runs

    path = checkpoint.with_suffix(".safetensors")
    try:
        write(open_model(checkpoint), "safetensors", path, None)
    except (*USER_ERRORS, OSError) as error:  # a base-code encoder is no model by itself
        log.warning("no bundle of %s: %s", checkpoint.name, error)
        return None
    return path
