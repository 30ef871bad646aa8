"""A run that is kept elsewhere: written to a folder of this machine, copied from there in the
background by rank 0, and pruned once it has arrived.

A round looks at every file of the folder and copies what has changed: checkpoints first, `finished`
last, so that the state that is found there never speaks of files that are not. A checkpoint is held
by a link of its own while it is copied (the next one takes its name meanwhile), has its name there
only when all of it has come, and a second name of one content (`best.ckpt`, `previous.ckpt`) is
copied by the store itself. A fault is logged, stands in `state.json`, and is tried again until it
passes; it never stops the training. Only the end waits, and fails when the rest cannot be copied.

`owner.json` there is the lock: who trains, renewed while he lives. Whoever finds another's name in
it stops copying at once: it is the other's run now.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ganinv.core.command import entry, override
from ganinv.core.errors import ConfigError, RunError, explain
from ganinv.run.launch import rank_info
from ganinv.run.ledger import BEST, Ledger, arrived
from ganinv.run.naming import check_not_in_use
from ganinv.run.status import MOST_BYTES, parse_state, this_process, update_state
from ganinv.run.storage.base import (
    NotThere,
    Storage,
    StorageFault,
    patiently,
    wait_before,
)

log = logging.getLogger(__name__)

EVERY = 15.0  # seconds between two rounds
SHARE = 20  # a file that goes on growing is copied again after so many times what that took
BEAT = 20.0  # seconds between two signs of life
ALIVE = 90.0  # seconds after the last one until the run counts as dead
SETTLE = 2.0  # seconds after which two who wrote owner.json at once both see who was last
PATIENCE = 300.0  # seconds without success after which the end gives up
OWNER = "owner.json"
HELD = ".held"
LAST = ("state.json", "finished")  # copied when all else is there


def owner_of(storage: Storage) -> dict[str, Any]:
    """Who trains in a run's folder there, as a state; empty: nobody.

    Raises:
        StorageFault: it cannot be read.
    """
    try:
        return parse_state(storage.read(OWNER, MOST_BYTES))[0]
    except NotThere:
        return {}


class Mirror:
    """Copies a run's folder while it is trained.

    Args:
        folder: of this machine.
        storage: the run's folder there.
    """

    def __init__(self, folder: Path, storage: Storage) -> None:
        self.folder, self.storage = folder, storage
        self.token = secrets.token_hex(8)
        self.ledger = Ledger(folder)
        self.taken: str | None = None  # by whom, when the run is another's now
        self._arrived = 0  # files that this process has copied
        self._due: dict[str, float] = {}  # name -> time before which it is not copied again
        self._fault: str | None = None
        self._since = 0.0  # when it began
        self._stop = Event()
        self._threads = [
            Thread(target=self._copy, name="upload", daemon=True),
            Thread(target=self._beat, name="upload-beat", daemon=True),
        ]

    # ---------------------------------------------------------------- the lock

    def claim(self) -> None:
        """Write down who trains there.

        Raises:
            ConfigError: another run is under way there, or nothing can be written.
        """
        try:
            other = patiently(lambda: owner_of(self.storage), self.storage.at(OWNER))
            check_not_in_use(self.storage.address, other, ALIVE)
            patiently(self._sign, self.storage.at(OWNER))
            patiently(lambda: self.storage.remove("finished"), self.storage.address)
            self.ledger.pop("finished", None)
            time.sleep(SETTLE)
            other = patiently(lambda: owner_of(self.storage), self.storage.at(OWNER))
        except StorageFault as error:
            raise refusal(self.storage.address, error) from error
        if other.get("token") != self.token:
            check_not_in_use(self.storage.address, other, ALIVE)

    def _sign(self) -> None:
        state = {"state": "running", "job": rank_info().job, "token": self.token}
        content = state | this_process() | {"time": time.time()}
        self.storage.write(OWNER, json.dumps(content, indent=1).encode())

    def _check_owner(self) -> None:
        """Notice that another run has taken this one over."""
        other = owner_of(self.storage)
        if other and other.get("token") != self.token:
            self.taken = f"{other.get('job')}, on {other.get('host')}"
            log.error(
                "%s was taken over by another run (%s): nothing of this one is copied there any "
                "more; it stays in %s", self.storage.address, self.taken, self.folder,
            )  # fmt: skip

    def _beat(self) -> None:
        while not self._stop.wait(BEAT) and not self.taken:
            with suppress(StorageFault, OSError):  # the thread that copies tells of it
                self._check_owner()
                if not self.taken:
                    self._sign()

    # ---------------------------------------------------------------- copying

    def start(self) -> None:
        """Begin; what a killed run held is let go."""
        shutil.rmtree(self.folder / HELD, ignore_errors=True)
        self.ledger.save()
        for thread in self._threads:
            thread.start()

    def _copy(self) -> None:
        """Rounds, until the end; after a fault the next one waits longer."""
        attempts = 0
        while not self._stop.wait(wait_before(attempts) if attempts else EVERY):
            if self.taken:
                return
            try:
                self.round()
                attempts = 0
            except (StorageFault, OSError) as error:
                attempts += 1
                self._tell(str(error), attempts)

    def round(self, final: bool = False) -> None:
        """Copy what has changed, then prune.

        Args:
            final: also what was copied a moment ago.

        Raises:
            StorageFault: at the first file that cannot be copied.
        """
        for name in self._changed(final):
            if self.taken:
                return
            begin = time.monotonic()
            self._send(name)
            now = time.monotonic()
            if not name.endswith(".ckpt"):
                self._due[name] = now + SHARE * (now - begin)
        self._prune()
        if self._fault is not None:
            log.warning("%s: copied again", self.storage.address)
            self._fault = None
            update_state(self.folder, upload=None)

    def _changed(self, final: bool) -> list[str]:
        """Names of what is to be copied now, in order."""
        now = time.monotonic()
        names = [
            name
            for name in sorted(files_of(self.folder))
            if not self.ledger.holds(name) and (final or now >= self._due.get(name, 0))
        ]
        return sorted(names, key=_place)

    def _send(self, name: str) -> None:
        """Copy one file, held by a link of its own; what was removed meanwhile is left out."""
        held = self.folder / HELD
        held.mkdir(exist_ok=True)
        still = held / name.replace("/", "-")
        still.unlink(missing_ok=True)
        try:
            still.hardlink_to(self.folder / name)
        except FileNotFoundError:
            return
        try:
            found = still.stat()
            if name.endswith(".ckpt"):
                self._check_owner()
                if self.taken:
                    return
            same = self._same_there((found.st_size, found.st_mtime_ns, found.st_ino), name)
            if same is None:
                self.storage.upload(still, name)
            else:
                self.storage.copy(same, name)
            there = self.storage.entry(name)
            if name.endswith(".ckpt") and there.bytes != found.st_size:
                raise StorageFault(f"{there.bytes:,} of {found.st_size:,} bytes of {name} came")
            self.ledger[name] = arrived(found, there.mark)
            self.ledger.save()
            self._arrived += 1
        finally:
            still.unlink(missing_ok=True)

    def _same_there(self, key: tuple[int, int, int], name: str) -> str | None:
        """Another checkpoint there that has this very content."""
        if not name.endswith(".ckpt"):
            return None
        return next((n for n, a in self.ledger.items() if a.key == key and n != name), None)

    def _tell(self, fault: str, attempts: int) -> None:
        """In the log, and in state.json while it lasts."""
        waiting = [self.folder / name for name in self._changed(final=True)]
        size = sum(path.stat().st_size for path in waiting if path.is_file())
        log.warning(
            "%s: %s; %d files (%.1f MiB) wait in %s; training goes on, try %d follows",
            self.storage.address, fault, len(waiting), size / 2**20, self.folder, attempts + 1,
        )  # fmt: skip
        if self._fault is None:
            self._since = time.time()
        self._fault = fault
        known = {"files": len(waiting), "bytes": size, "fault": fault[:500], "since": self._since}
        with suppress(OSError):
            update_state(self.folder, upload=known)

    # ---------------------------------------------------------------- pruning

    def _prune(self) -> None:
        """Remove what has arrived and no resume here needs: every checkpoint but `last.ckpt` and
        the best one, every grid but the newest. There, the best ones that fell behind."""
        ranking = self.ledger.ranking()
        for name in list(self.ledger):
            if name == "checkpoints/previous.ckpt":
                self._remove_here(name)
            elif BEST.fullmatch(name) and ranking is not None:
                if name in ranking[1:]:
                    self._remove_here(name)
                elif name not in ranking and not (self.folder / name).exists():
                    self.storage.remove(name)
                    del self.ledger[name]
                    self.ledger.save()
        grids = sorted(name for name in self.ledger if name.startswith("grids/"))
        for name in grids[:-1]:
            self._remove_here(name)

    def _remove_here(self, name: str) -> None:
        if self.ledger.holds(name):
            (self.folder / name).unlink(missing_ok=True)

    # ---------------------------------------------------------------- the end

    def close(self) -> None:
        """Copy what is left, however often it takes.

        Raises:
            RunError: it cannot be copied, or the run is another's.
        """
        self._stop.set()
        for thread in self._threads:
            thread.join()
        fault = self._finish()
        if self.taken:
            fault = f"another run ({self.taken}) has taken it over"
        if fault is not None:
            raise self._failure(fault)
        if (self.folder / "finished").is_file():
            for name in [name for name in self.ledger if name.endswith(".ckpt")]:
                self._remove_here(name)
        with suppress(StorageFault):  # else it counts as dead after a while
            self.storage.remove(OWNER)

    def _finish(self) -> str | None:
        """The last rounds; why they failed."""
        attempts, deadline = 0, time.monotonic() + PATIENCE
        arrived_before = self._arrived
        while not self.taken:
            try:
                self.round(final=True)
                self.round(final=True)  # a fault that is over has changed state.json
                self._check_owner()
                return None
            except (StorageFault, OSError) as error:
                attempts += 1
                self._tell(str(error), attempts)
                if self._arrived > arrived_before:
                    attempts, deadline = 1, time.monotonic() + PATIENCE
                arrived_before = self._arrived
                wait = wait_before(attempts)
                if time.monotonic() + wait > deadline:
                    return str(error)
                time.sleep(wait)
        return None

    def _failure(self, fault: str) -> RunError:
        waiting = [self.folder / name for name in self._changed(final=True)]
        size = sum(path.stat().st_size for path in waiting if path.is_file())
        again = f"{entry('train')} <same options> {override('run_dir', self.storage.address)}"
        return RunError(
            explain(
                f"{len(waiting)} files ({size / 2**20:.1f} MiB) of the run could not be copied to "
                f"{self.storage.address}: {fault}",
                "a store that takes them",
                f"they are whole in {self.folder}; once it does, on this machine: {again} "
                "resume=auto",
            )
        )


def refusal(address: str, error: Exception) -> ConfigError:
    """A place that cannot be used, before anything is trained."""
    todo = "check the address and the keys (docs/CLUSTER.md), or take a folder: runs=runs"
    return ConfigError(explain(f"{address} cannot be used: {error}", "a store that can be read "
                               "and written", todo))  # fmt: skip


def files_of(folder: Path) -> Iterator[str]:
    """Names of a run's files, without links, and without what is hidden: half-written ones."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(parent) / name
            if not name.startswith(".") and not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def _place(name: str) -> tuple[int, str]:
    """Checkpoints first, and `last.ckpt` after `previous.ckpt`, whose content it replaces."""
    if name in LAST:
        return 3 + LAST.index(name), name
    if name.endswith(".ckpt"):
        return int(name.endswith("last.ckpt")), name
    return 2, name


@contextmanager
def uploading(folder: Path, storage: Storage | None) -> Iterator[None]:
    """Within this block a run's folder is copied to where it is kept; at its end, all of it. Only
    rank 0 does anything.

    Args:
        folder: of this machine.
        storage: the run's folder there; None for a run that is kept in `folder`.

    Raises:
        ConfigError: another run is under way there.
        RunError: the rest could not be copied.
    """
    if storage is None or rank_info().rank > 0:
        yield
        return
    mirror = Mirror(folder, storage)
    mirror.claim()
    mirror.start()
    try:
        yield
    except BaseException:
        try:
            mirror.close()
        except RunError as error:
            log.error("%s", error)
        raise
    print(f"Copying the rest to {storage.address}", flush=True)
    mirror.close()
    print(f"All of it is in {storage.address}", flush=True)
