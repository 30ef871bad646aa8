"""Callbacks on the clock of images seen: when to stop and validate, what to log, what to save."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor
from torchvision.utils import save_image

from ganinv.method.base import Method
from ganinv.trainer.compile import Compile
from ganinv.trainer.flops import COUNTED, Flops, peak_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def due(seen: int, before: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, seen]."""
    return every > 0 and seen // every > before // every


def step_images(trainer: pl.Trainer) -> int:
    """Images of one step over all ranks."""
    return trainer.datamodule.batch_size * trainer.world_size  # type: ignore[attr-defined]


class StopAndValidate(pl.Callback):
    """Stops at `max_images`; asks for a validation every `val_every` images; turns signals into an
    orderly stop after the running step (a second Ctrl-C stops at once).

    Args:
        max_images: length of the run.
        val_every: images between two validations.
    """

    def __init__(self, *, max_images: int, val_every: int) -> None:
        self.max_images, self.val_every = max_images, val_every
        self.caught: int | None = None
        self._before: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Validate at batches, not epochs: the stream has no epochs."""
        if stage == "fit":
            trainer.val_check_interval = max(1, self.val_every // step_images(trainer))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals; a run that is already long enough stops before its first step."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._catch)
        assert isinstance(pl_module, Method)
        if pl_module.images_seen >= self.max_images:
            trainer.should_stop = True

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.caught = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """All ranks stop after the same step, whichever of them got the signal."""
        assert isinstance(pl_module, Method)
        caught = self.caught or 0
        if trainer.world_size > 1:
            caught = trainer.strategy.largest(caught)  # type: ignore[attr-defined]
        pl_module.interrupted = caught
        if caught:
            trainer.limit_val_batches = 0  # whoever sent the signal will not wait for a validation
        if caught or pl_module.images_seen >= self.max_images:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Telemetry(pl.Callback):
    """Sends what the method watched to the loggers, averaged over ranks; writes grids as PNG.

    Args:
        run_dir: grids go to `run_dir/grids`.
        every: images between two entries; the one point where tensors become numbers.
    """

    def __init__(self, *, run_dir: Path, every: int) -> None:
        self.run_dir, self.every = run_dir, every
        self._seen, self._since, self._steps = 0, time.perf_counter(), 0
        self._waited, self._step_end = 0.0, 0.0
        self._met = 0.0  # seconds that this rank had waited for others at the last entry
        self._reduced = 0  # bytes that it had handed to all-reduces by then
        self._counting: Flops | None = None
        self._flops = 0.0  # of an image
        self._peak: float | None = None  # of a device, FLOP/s

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the stopwatch."""
        assert isinstance(pl_module, Method)
        self._peak = peak_of(pl_module.device, str(trainer.precision))
        self._restart(trainer, pl_module.images_seen, time.perf_counter())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What passed since the last step was spent waiting for data."""
        self._waited += time.perf_counter() - self._step_end
        self._steps += 1
        if self._steps == COUNTED + 1 and not self._compiled(trainer):
            self._counting = Flops()
            self._counting.__enter__()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Log when due."""
        assert isinstance(pl_module, Method)
        self._flops += self._stop_counting() * trainer.world_size / step_images(trainer)
        seen, now = pl_module.images_seen, time.perf_counter()
        self._step_end = now
        if not due(seen, seen - step_images(trainer), self.every):
            return
        metrics = self._speed(trainer, seen - self._seen, max(now - self._since, 1e-9))
        values = self._numbers(trainer, pl_module.values)
        pl_module.shown = {k: v for k, v in values.items() if "/" not in k or "score" not in k}
        metrics |= {f"train/{name}": value for name, value in values.items()}
        if hasattr(pl_module, "stage"):
            metrics["train/stage"] = float(pl_module.stage)  # type: ignore[arg-type]
        metrics["train/skipped_steps"] = float(pl_module.nonfinite)
        metrics["kimg"] = seen / 1000
        for i, optimizer in enumerate(trainer.optimizers):
            metrics[f"lr/{pl_module.player_names[i]}"] = optimizer.param_groups[0]["lr"]
        self._log(trainer, metrics, seen)
        self._restart(trainer, seen, time.perf_counter())

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """A step that is counted may not be the one that ends."""
        self._stop_counting()

    @staticmethod
    def _compiled(trainer: pl.Trainer) -> bool:
        """Whether parts of a step run as graphs, into which a count does not see."""
        return any(isinstance(callback, Compile) for callback in trainer.callbacks)  # type: ignore[attr-defined]

    def _stop_counting(self) -> int:
        """Floating-point operations counted since, 0 where nothing is."""
        counting, self._counting = self._counting, None
        if counting is None:
            return 0
        counting.__exit__(None, None, None)
        return counting.total

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the validation's means and its picture."""
        assert isinstance(pl_module, Method)
        seen = pl_module.images_seen
        self._log(trainer, {f"val/{k}": v for k, v in pl_module.validation.items()}, seen)
        if pl_module.grid is not None and trainer.is_global_zero:
            path = self.run_dir / "grids" / f"{seen:09d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(pl_module.grid, path)
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image("val/grid", [str(path)], step=seen)
                elif isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image("val/grid", pl_module.grid, seen)
        self._restart(trainer, seen, time.perf_counter())

    def _restart(self, trainer: pl.Trainer, seen: int, now: float) -> None:
        """Measure from here."""
        self._seen, self._since, self._step_end, self._waited = seen, now, now, 0.0
        if trainer.world_size > 1:
            self._met = trainer.strategy.watch.waited  # type: ignore[attr-defined]
            self._reduced = trainer.strategy.reduced_bytes  # type: ignore[attr-defined]

    def _speed(self, trainer: pl.Trainer, images: int, elapsed: float) -> dict[str, float]:
        """Images a second, and what the ranks waited for: data, or one another. The rank that
        waited least for the others is the one they waited for."""
        found = {"images_per_sec": images / elapsed}
        shares = [self._waited / elapsed]
        if trainer.world_size > 1:
            watch = trainer.strategy.watch  # type: ignore[attr-defined]
            shares.append((watch.waited - self._met) / elapsed)
            rows = trainer.strategy.gather_rows(torch.tensor(shares))  # type: ignore[attr-defined]
            found["images_per_sec_per_rank"] = found["images_per_sec"] / trainer.world_size
            found["data_wait_share_worst"] = float(rows[:, 0].max())
            found["rank_wait_share"] = float(rows[:, 1].mean())
            found["slowest_rank"] = float(rows[:, 1].argmin())
            reduced = trainer.strategy.reduced_bytes - self._reduced  # type: ignore[attr-defined]
            found["reduced_mib_per_step"] = reduced / 2**20 / max(1, images // step_images(trainer))
            shares = rows.mean(0).tolist()
        found["data_wait_share"] = shares[0]
        if self._flops:  # of each device
            rate = self._flops * found["images_per_sec"] / trainer.world_size
            found["tflops"] = rate / 1e12
            if self._peak is not None:
                found["mfu"] = rate / self._peak
        if torch.cuda.is_available():
            found["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return {f"speed/{name}": value for name, value in found.items()}

    @staticmethod
    def _numbers(trainer: pl.Trainer, values: dict[str, Tensor]) -> dict[str, float]:
        if not values:
            return {}
        stacked = torch.stack([v.float() for v in values.values()])
        if trainer.world_size > 1:
            trainer.strategy.reduce_mean([stacked])  # type: ignore[attr-defined]
        return dict(zip(values, stacked.tolist(), strict=True))

    @staticmethod
    def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
