"""How far the loop is: a bar on a terminal; without one, a line a minute in the log; and whoever
listens is told each step."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor
from tqdm import tqdm

SHOWN_EVERY = 10  # steps between two looks at the loss for the bar
LOGGED_EVERY = 60.0  # seconds between two lines where there is no terminal
Listener = Callable[[str, int, int], None]  # method, steps that are done, steps in all
LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)
log = logging.getLogger(__name__)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """The loops that this thread runs within tell `listener` of every step."""
    token = LISTENER.set(listener)
    try:
        yield
    finally:
        LISTENER.reset(token)


class Pace:
    """Tells steps, loss and images a minute of one batch. It looks at the loss, which waits for the
    device, only where it tells it.

    Args:
        method: whose loop it is.
        steps: of the loop.
        images: of the batch.
        shown: what the loss is called.
    """

    def __init__(self, method: str, *, steps: int, images: int, shown: str) -> None:
        self.method, self.steps, self.images, self.shown = method, steps, images, shown
        self.began = self.told = time.monotonic()
        helps = multiprocessing.parent_process() is not None  # its parent's bar is on the terminal
        self.bar = tqdm(total=steps, desc=method, leave=False, disable=helps or None)

    def step(self, done: int, loss: Tensor) -> None:
        """After a step.

        Args:
            done: how many there were.
            loss: of the images that still move, [b], before that step.
        """
        self.bar.update()
        if (listener := LISTENER.get()) is not None:
            listener(self.method, done, self.steps)
        if not self.bar.disable:
            if done % SHOWN_EVERY == 1:
                self.bar.set_postfix_str(self._words(done, loss))
        elif time.monotonic() - self.told >= LOGGED_EVERY:
            self.told = time.monotonic()
            words = self._words(done, loss)
            log.info("%s: %d of %d steps, %s", self.method, done, self.steps, words)

    def close(self) -> None:
        """The bar goes."""
        self.bar.close()

    def _words(self, done: int, loss: Tensor) -> str:
        minutes = max(time.monotonic() - self.began, 1e-9) / 60
        rate = self.images * done / self.steps / minutes
        return f"{self.shown} {loss.mean():.4g}, about {rate:.3g} images/minute"
