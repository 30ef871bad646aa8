"""The ranks watch one another, so that no run hangs for hours without saying why.

Each rank counts the places where ranks meet (every collective of the strategy) and its validation
batches, and a thread of its own writes the count into the ranks' store every few seconds: a
heartbeat. The thread ends its process, and says so, when

- this rank stands still for `timeout`: whoever has a lower count and stands still as well is what
  the others wait for, is named, and writes into its own log where it stands;
- rank 0 finds that a rank's process is gone, or that its heartbeat stopped with its machine;
- another rank has failed and left its reason;
- the store is gone, and with it rank 0.

A thread is needed because a rank that waits in a collective can do nothing else.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]

from ganinv.run.launch import another_connection
from ganinv.run.logs import print_to_terminal
from ganinv.run.status import is_there, processes

EXIT_CODE = 70
POLL = 2.0  # seconds
LAST_WORDS = 10.0  # seconds for them
SILENT = 60.0  # seconds without a heartbeat after which a rank counts as dead


class RankWatchdog:
    """This rank's view of the others.

    Args:
        rank: of this process.
        world_size: number of ranks.
        timeout: seconds that ranks wait for one another.
    """

    def __init__(self, *, rank: int, world_size: int, timeout: float) -> None:
        self.rank, self.world_size, self.timeout = rank, world_size, timeout
        self.silent = min(SILENT, timeout / 2)
        self.poll = min(POLL, timeout / 4)
        self.met, self.images_seen = 0, 0
        self.waited = 0.0  # seconds in meetings, for the telemetry
        self.children: list[subprocess.Popen[bytes]] = []  # ranks that this process started
        self.last_words: list[Callable[[str], None]] = []  # told why, before the thread ends rank 0
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._guarded, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; the other ranks are told that this one is done."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """A place where this rank waits for the others."""
        self.arrive()
        begun = time.perf_counter()
        yield
        self.waited += time.perf_counter() - begun
        self._since = time.monotonic()

    def arrive(self) -> None:
        """This rank got a step further."""
        self.met += 1
        self.move()

    def move(self) -> None:
        """This rank works, between two meetings."""
        self._since = time.monotonic()

    def fail(self, reason: str) -> None:
        """Leave the reason for the other ranks."""
        self._ended.set()
        store = another_connection(timedelta(seconds=10))
        if not store.check(["failed"]):
            store.set("failed", reason)

    def verdict(self, error: str) -> str:
        """Why the connection to another rank broke: what that rank said, or that it was killed."""
        self._ended.set()
        todo = "To go on: the same command, resume=auto"
        try:
            store = another_connection(timedelta(seconds=5))
            for _ in range(10):
                if store.check(["failed"]):
                    return f"{store.get('failed').decode()}. {todo}"
                others = self._others(store).items()
                gone = [_named(rank, beat) for rank, beat in others if _killed(beat)]
                if gone:
                    return f"{', '.join(gone)} was killed. {todo}"
                time.sleep(0.3)
        except RuntimeError:
            return f"rank 0 is gone ({error}). {todo}"
        return f"the connection to another rank broke ({error}); see logs/ for its reason. {todo}"

    # ------------------------------------------------------------------ the thread

    def _guarded(self) -> None:
        try:
            self._run(another_connection(timedelta(seconds=30)))
        except Exception as error:  # the store's errors are RuntimeErrors of many kinds
            time.sleep(self.poll)  # the main thread may be about to say more
            if not self._ended.is_set():
                lost = str(error).splitlines()[0][:200]
                self._die(f"rank 0, which keeps the ranks together, is gone ({lost})")

    def _run(self, store: Store) -> None:
        heard: dict[int, tuple[str, float]] = {}  # rank -> last heartbeat and when it was new
        self._beat(store)
        while not self._ended.wait(self.poll):
            self._beat(store)
            if store.check(["failed"]):
                reason = store.get("failed").decode()
                time.sleep(self.poll)
                if not self._ended.is_set():
                    self._die(f"stopped because {reason}")
            if self.rank == 0:
                self._listen(store, heard)
            if time.monotonic() - self._since > self.timeout:
                self._stuck(store)
        if not store.check(["failed"]):
            self._beat(store, done=True)

    def _beat(self, store: Store, done: bool = False) -> None:
        beat = {
            "met": self.met,
            "time": time.time(),
            "host": platform.node(),
            "pid": os.getpid(),
            "processes": processes(),
            "idle": time.monotonic() - self._since,
            "images_seen": self.images_seen,
            "done": done,
        }
        store.set(f"beat/{self.rank}", json.dumps(beat))

    def _others(self, store: Store) -> dict[int, dict[str, Any]]:
        """The last heartbeat of every rank that has begun."""
        begun = [r for r in range(self.world_size) if store.check([f"beat/{r}"])]
        return {r: json.loads(store.get(f"beat/{r}")) for r in begun}

    def _listen(self, store: Store, heard: dict[int, tuple[str, float]]) -> None:
        now = time.monotonic()
        for rank, beat in self._others(store).items():
            mark = f"{beat['time']}"
            if rank not in heard or heard[rank][0] != mark:
                heard[rank] = mark, now
            elif not beat["done"] and _killed(beat):
                self._announce(store, f"{_named(rank, beat)} was killed")
            elif not beat["done"] and now - heard[rank][1] > self.silent:
                self._announce(
                    store,
                    f"{_named(rank, beat)} has given no sign for {self.silent:.0f} s: its process "
                    "is stopped, or its machine is gone",
                )

    def _stuck(self, store: Store) -> None:
        """Nothing moved here for `timeout`: name who is behind, unless they only take long."""
        self._beat(store)
        beats = self._others(store)
        furthest = max(beat["met"] for beat in beats.values())
        behind = {r: b for r, b in beats.items() if b["met"] < furthest}
        if behind and all(b["idle"] < self.timeout - 2 * self.poll for b in behind.values()):
            return
        names = [_named(r, b) for r, b in behind.items()]
        names += [f"rank {r}" for r in range(self.world_size) if r not in beats]
        if self.met < furthest or not names:
            print(f"rank {self.rank} stands here:", flush=True)
            faulthandler.dump_traceback(all_threads=True)
        else:
            time.sleep(2 * self.poll)  # let the one that hangs write down where
        who = ", ".join(names) or "no rank in particular (a collective itself hangs)"
        self._announce(
            store,
            f"the ranks waited {self.timeout:.0f} s (trainer.timeout_minutes) for {who}; where it "
            "stands is in its log",
        )

    def _announce(self, store: Store, reason: str) -> None:
        if not store.check(["failed"]):
            store.set("failed", reason)
        self._die(store.get("failed").decode())

    def _die(self, reason: str) -> None:
        if self._ended.is_set():
            return
        text = f"\nRunError: rank {self.rank}: {reason}. To go on: the same command, resume=auto"
        if self.rank == 0:
            print_to_terminal(text)
            self._tell(f"RunError: {reason}")
        else:
            print(text, flush=True)
            if "is gone" not in reason:
                time.sleep(3 * self.poll)  # rank 0 speaks for all, and launchers end it with us
        for child in self.children:
            child.kill()  # a stopped process hears nothing else
        os._exit(EXIT_CODE)  # the main thread cannot be woken from a collective

    def _tell(self, reason: str) -> None:
        """What the main thread would say of its error; a disk or a server may not answer."""

        def tell() -> None:
            for listener in self.last_words:
                listener(reason)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        thread.join(timeout=LAST_WORDS)


def _killed(beat: dict[str, Any]) -> bool:
    """Whether a process of this machine is certainly gone."""
    return is_there(beat["pid"], beat["processes"]) is False


def _named(rank: int, beat: dict[str, Any]) -> str:
    return (
        f"rank {rank} (process {beat['pid']} on {beat['host']}, "
        f"{beat['images_seen'] / 1000:.2f} kimg)"
    )
