"""How Lightning writes and reads checkpoints: through `run/checkpoint.py`, in a thread if asked."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ganinv.run import checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, syncs and renames; reads with torch's restricted reader only. The
    `last.ckpt` before the newest one stays as `previous.ckpt`.

    Args:
        asynchronous: serialise at once, but write to disk in a thread. One write is under way at a
            time: the next save, and the end of the run, wait for it and raise what went wrong.
    """

    def __init__(self, *, asynchronous: bool) -> None:
        super().__init__()
        self._writer = ThreadPoolExecutor(1, "checkpoint") if asynchronous else None
        self._pending: list[Future[None]] = []
        self.held: checkpoint.Held | None = None  # what a run goes on from, until it is loaded

    def save_checkpoint(
        self, content: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save atomically.

        Raises:
            RunError: this file, or the one before, could not be written.
        """
        self.wait()
        buffer = io.BytesIO()
        torch.save(content, buffer)
        self.afterwards(lambda: checkpoint.write_checkpoint(Path(path), buffer.getbuffer()))

    def afterwards(self, job: Callable[[], None]) -> None:
        """Call a function once all earlier writes are on disk."""
        if self._writer is None:
            job()
        else:
            self._pending.append(self._writer.submit(job))

    def wait(self) -> None:
        """Until everything is on disk.

        Raises:
            RunError: something could not be written.
        """
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        """Load tensors and plain values, of what is in memory already or of the file; one that
        needs more is refused."""
        held, self.held = self.held, None
        return checkpoint.read_checkpoint(path) if held is None else held.read()
