"""W&B's alerts (mail, Slack, as its user has set them) when a run ends, fails or skips steps."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ganinv.method.base import Method

SELDOM = timedelta(hours=1)  # between two alerts of one title
log = logging.getLogger(__name__)


def alert(trainer: pl.Trainer, title: str, text: str, level: str) -> None:
    """Send it from rank 0 through every W&B logger; what W&B cannot take ends no run.

    Args:
        trainer: whose loggers.
        title: of the alert, behind the run's name.
        text: what happened.
        level: INFO, WARN or ERROR.
    """
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, WandbLogger):
            try:
                run = logger.experiment
                run.alert(f"{run.name}: {title}", text[:2000], level, SELDOM)
            except Exception as error:  # of a service in another process
                log.warning("W&B took no alert (%s): %s: %s", error, title, text)


class Alerts(pl.Callback):
    """Sends them."""

    def __init__(self) -> None:
        self._skipped = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Steps that were skipped before a resume have been told; the watchdog's thread may have to
        tell how the run ended."""
        assert isinstance(pl_module, Method)
        self._skipped, method = pl_module.nonfinite, pl_module
        if (watch := getattr(trainer.strategy, "watch", None)) is not None:
            watch.last_words.append(
                lambda reason: alert(trainer, "failed", f"{_clock(method)}: {reason}", "ERROR")
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        """A step was skipped: its gradient was NaN or Inf."""
        assert isinstance(pl_module, Method)
        if pl_module.nonfinite > self._skipped:
            self._skipped = pl_module.nonfinite
            text = f"{self._skipped} in all: gradients that are NaN or Inf"
            alert(trainer, "skipped steps", f"{_clock(pl_module)}, {text}", "WARN")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The run is over, or was told to stop."""
        assert isinstance(pl_module, Method)
        value = pl_module.validation.get(pl_module.monitor)
        text = "" if value is None else f", {pl_module.monitor} {value:.4g} in the last validation"
        title = "interrupted" if pl_module.interrupted else "finished"
        alert(trainer, title, f"{_clock(pl_module)}{text}", "INFO")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """What ended it."""
        assert isinstance(pl_module, Method)
        if isinstance(exception, KeyboardInterrupt):
            alert(trainer, "interrupted", _clock(pl_module), "INFO")
        else:
            text = f"{_clock(pl_module)}: {type(exception).__name__}: {exception}"
            alert(trainer, "failed", text, "ERROR")


def _clock(method: Method) -> str:
    return f"at {method.images_seen / 1000:.2f} kimg"
