"""The ranks' watchdog (`run/watchdog.py`) in Lightning's loop, and words for what ends a run."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

from ganinv.core.errors import USER_ERRORS, RunError, explain
from ganinv.run.watchdog import RankWatchdog

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)  # full, ill or gone


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed because another rank did."""
    words = ("onnection", "gloo", "NCCL", "peer", "store")
    known = isinstance(error, RuntimeError) and not isinstance(error, USER_ERRORS)
    return known and any(word in str(error) for word in words)


@contextmanager
def friendly_errors(trainer: pl.Trainer) -> Iterator[None]:
    """Turns what the machine did to a run into a sentence: a broken connection to a rank that
    ended, a full disk.

    Raises:
        RunError: naming the rank that ended, and why if it has said so; or the file.
        KeyboardInterrupt: Ctrl-C, outside of the steps, which end by themselves.
    """
    try:
        yield
    except SystemExit as error:  # Lightning's answer to Ctrl-C, which says nothing
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except OSError as error:
        if error.errno not in DISK:
            raise
        given = f"{error.filename or 'a log, a table or a picture of the run'}: {error.strerror}"
        todo = "make room or make it writable, then the same command with resume=auto"
        raise RunError(explain(given, "a disk that takes what a run writes", todo)) from error
    except RuntimeError as error:
        watch = getattr(trainer.strategy, "watch", None)
        if watch is None or not _is_lost_connection(error):
            raise
        raise RunError(watch.verdict(str(error).strip().splitlines()[0][:200])) from error


class WatchdogCallback(pl.Callback):
    """Stops the watchdog when the run ends, and tells the other ranks why this one failed."""

    @staticmethod
    def _watch(trainer: pl.Trainer) -> RankWatchdog:
        found = trainer.strategy.watch  # type: ignore[attr-defined]
        assert isinstance(found, RankWatchdog)
        return found

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Report the position of this rank, for the message that names it."""
        self._watch(trainer).images_seen = pl_module.images_seen

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Report progress: a validation has few collectives."""
        self._watch(trainer).move()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Tell the other ranks why this one failed, unless it only lost its connection to one."""
        watch = getattr(trainer.strategy, "watch", None)
        if watch is not None and not _is_lost_connection(exception):
            reason = f"{type(exception).__name__}: {exception}".splitlines()[0]
            watch.fail(f"rank {watch.rank} failed: {reason[:500]}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop watching: no collectives follow."""
        self._watch(trainer).stop()
