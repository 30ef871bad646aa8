"""Keeps the run's `state.json` (`run/status.py`) up to date while it trains."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ganinv.method.base import Method
from ganinv.run.status import NAME, update_state

EVERY = 10.0  # seconds between two heartbeats


class RunStatus(pl.Callback):
    """Keeps `state.json` up to date.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, *, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._written = 0.0
        self._best: tuple[float, float] | None = None  # (value, kimg)

    def _beat(self, trainer: pl.Trainer, method: pl.LightningModule, state: str) -> None:
        if not trainer.is_global_zero or not (self.run_dir / NAME).is_file():
            return
        assert isinstance(method, Method)
        self._written = time.monotonic()
        best = None if self._best is None else {"value": self._best[0], "kimg": self._best[1]}
        with suppress(OSError):  # a full disk: the checkpoint's own error says so, and better
            update_state(
                self.run_dir,
                state=state,
                kimg=method.images_seen / 1000,
                ranks=trainer.world_size,
                monitor=method.monitor,
                best=best,
                skipped_steps=method.nonfinite,
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the status to running; the watchdog's thread may have to say how it ended."""
        self._beat(trainer, pl_module, "running")
        if (watch := getattr(trainer.strategy, "watch", None)) is not None:
            watch.last_words.append(self._failed)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Write a heartbeat."""
        if time.monotonic() - self._written > EVERY:
            self._beat(trainer, pl_module, "running")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Write a heartbeat: validations may take long."""
        if time.monotonic() - self._written > EVERY:
            self._beat(trainer, pl_module, "running")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the best validation."""
        assert isinstance(pl_module, Method)
        value = pl_module.validation.get(pl_module.monitor)
        if value is not None and (self._best is None or value < self._best[0]):
            self._best = value, pl_module.images_seen / 1000
            self._beat(trainer, pl_module, "running")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the status to finished or interrupted."""
        assert isinstance(pl_module, Method)
        self._beat(trainer, pl_module, "interrupted" if pl_module.interrupted else "finished")
        summary = {"kimg": pl_module.images_seen / 1000, "skipped_steps": pl_module.nonfinite}
        if self._best is not None:
            summary |= {f"best_{pl_module.monitor}": self._best[0], "best_kimg": self._best[1]}
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                logger.experiment.summary.update({f"final/{k}": v for k, v in summary.items()})

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Set the status to failed, with the reason."""
        if not trainer.is_global_zero or not (self.run_dir / NAME).is_file():
            return
        if not isinstance(exception, KeyboardInterrupt):
            self._failed(f"{type(exception).__name__}: {exception}")
            return
        with suppress(OSError):
            update_state(self.run_dir, state="interrupted")

    def _failed(self, reason: str) -> None:
        with suppress(OSError):
            update_state(self.run_dir, state="failed", reason=reason[:2000])

    def state_dict(self) -> dict[str, Any]:
        """The best validation, which a resumed run keeps."""
        return {"best": None if self._best is None else list(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best validation."""
        best = state_dict["best"]
        self._best = None if best is None else (float(best[0]), float(best[1]))
