"""`state.json` in a run's folder: where the run stands, for people and for `ganinv runs`.

Rank 0 writes it, whole or not at all, at most every few seconds and whenever the state changes. Its
time is a heartbeat: a run whose state is `running` and whose heartbeat is old has died.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ganinv import __version__
from ganinv.core.safe.io import write_atomic
from ganinv.method.base import Method

NAME = "state.json"
EVERY = 10.0  # seconds between two heartbeats


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a run; empty where none was written."""
    path = folder / NAME
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def update_state(folder: Path, **changes: Any) -> None:
    """Change some entries and renew the heartbeat."""
    state = read_state(folder) | changes | {"time": time.time()}
    write_atomic(folder / NAME, json.dumps(state, indent=1).encode())


def processes() -> str:
    """Where process numbers mean something: this machine, and on Linux this container of it."""
    path = "/proc/self/ns/pid"
    return f"{platform.node()} {os.readlink(path) if os.path.exists(path) else ''}"


def _birth(pid: int) -> int | None:
    """When a living process of this machine began, in ticks since the machine did; None for one
    that is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            entries = file.read().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return None
    return None if entries[0] in "ZX" else int(entries[19])


def is_there(pid: int, where: str, born: int | None = None) -> bool | None:
    """Whether a process lives, and is the one that was born then: a container that is started again
    gives its processes the same numbers. None if it cannot be seen from here: it is elsewhere, by
    `processes()`, or there is no /proc."""
    if where != processes() or not os.path.exists("/proc/self/stat"):
        return None
    found = _birth(pid)
    return found is not None and born in (None, found)


def _words() -> list[str]:
    """The command line without what Lightning adds to the ranks that it starts."""
    return [word for word in sys.argv if not word.startswith("hydra.")]


def beginning(job: str, wandb_id: str, max_kimg: float) -> dict[str, Any]:
    """What is known when a run begins."""
    return {
        "state": "starting",
        "reason": None,
        "ganinv": __version__,
        "job": job,
        "wandb_id": wandb_id,
        "host": platform.node(),
        "processes": processes(),
        "pid": os.getpid(),
        "born": _birth(os.getpid()),
        "command": shlex.join(["python", *_words()]),
        "started_in": os.getcwd(),
        "max_kimg": max_kimg,
    }


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
        """From here on it runs."""
        self._beat(trainer, pl_module, "running")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """A heartbeat."""
        if time.monotonic() - self._written > EVERY:
            self._beat(trainer, pl_module, "running")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Validations may be long."""
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
        """It stopped in order."""
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
        """It stopped otherwise; the reason stays."""
        if trainer.is_global_zero and (self.run_dir / NAME).is_file():
            reason = f"{type(exception).__name__}: {exception}"
            with suppress(OSError):
                update_state(self.run_dir, state="failed", reason=reason[:2000])

    def state_dict(self) -> dict[str, Any]:
        """The best survives a resume."""
        return {"best": None if self._best is None else list(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        best = state_dict["best"]
        self._best = None if best is None else (float(best[0]), float(best[1]))
