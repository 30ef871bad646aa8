"""`logs/rank<N>.log` in the run's folder: what each rank said, from the start of training on.

Rank 0 says everything on its terminal as well. The other ranks write to their log only, C libraries
(NCCL) included, so that a terminal or a job's output shows one rank; an error that ends another
rank is shown there too, in one line.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO


class Tee:
    """A text stream that also goes to a log; a line that a progress bar rewrites is left out.

    Args:
        stream: the terminal.
        log: the file.
    """

    def __init__(self, stream: TextIO, log: IO[str]) -> None:
        self._stream, self._log, self._line = stream, log, ""

    def write(self, text: str) -> int:
        """To both."""
        for part in text.splitlines(keepends=True):
            self._line += part
            if part.endswith("\r"):
                self._line = ""
            elif part.endswith("\n"):
                self._log.write(self._line.rsplit("\r", 1)[-1])
                self._log.flush()
                self._line = ""
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the terminal's."""
        return getattr(self._stream, name)


class Lines:
    """A stream for a bar where there is no terminal: each of its states on a line of its own.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """What the bar would have drawn over."""
        if text.strip():
            self._stream.write(text.strip() + "\n")

    def flush(self) -> None:
        """The stream's."""
        self._stream.flush()


@contextmanager
def rank_log(folder: Path, rank: int) -> Iterator[None]:
    """Within this block, what the process says also goes to its log; so does what ends it."""
    path = folder / "logs" / f"rank{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", buffering=1) as log:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"--- {stamp} rank {rank}, process {os.getpid()} on {platform.node()}\n")
        faulthandler.enable(log)
        restore = _duplicate(log) if rank == 0 else _divert(log, rank)
        try:
            yield
        except BaseException as error:
            traceback.print_exception(error, file=log)
            if rank > 0:
                print_to_terminal(
                    f"rank {rank}: {type(error).__name__}: {error}  (all of it: {path})"
                )
            raise
        finally:
            faulthandler.disable()
            restore()


def _duplicate(log: IO[str]) -> Callable[[], None]:
    """Rank 0's streams, and the log handlers that hold them, on terminal and log."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Tee(before[0], log), Tee(before[1], log)  # type: ignore[assignment]
    moved = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is before[1]
    ]
    for handler in moved:
        handler.setStream(sys.stderr)

    def restore() -> None:
        sys.stdout, sys.stderr = before
        for handler in moved:
            handler.setStream(before[1])

    return restore


_terminal: list[TextIO] = []  # of a rank whose own streams lead to its log


def _divert(log: IO[str], rank: int) -> Callable[[], None]:
    """Another rank's streams, those of its C libraries too, into its log for good."""
    _terminal.append(os.fdopen(os.dup(2), "w", buffering=1))
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    return lambda: None


def print_to_terminal(text: str) -> None:
    """A line for the terminal (and rank 0's log), from any rank and any thread."""
    print(text, file=_terminal[-1] if _terminal else sys.stderr, flush=True)
