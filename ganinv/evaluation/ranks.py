"""The processes that share a job's batches: those of a launcher, or those that rank 0 starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ganinv.core.errors import USER_ERRORS, ConfigError, RunError, explain
from ganinv.evaluation.work import Work
from ganinv.run.launch import rank_info, resolve_size, store
from ganinv.run.logs import Lines

POLL = 0.2  # seconds
START = "spawn"  # of the processes that rank 0 starts: a fork would inherit torch's threads
Compute = Callable[[Work, list[int]], Iterable[tuple[int, dict[str, Tensor], dict[str, Any]]]]


class Job(Protocol):
    """What is to be done, as plain values that travel to another process."""

    def open(self, ranks: Ranks) -> Compute:
        """Load what it needs; work, numbers -> (number, tensors, metadata) as they are done."""
        ...


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a job.

    Attributes:
        rank: of this process.
        size: how many there are.
        local_rank: of this process on its machine.
        external: whether a launcher started them.
    """

    rank: int
    size: int
    local_rank: int
    external: bool

    def device(self, accelerator: str) -> torch.device:
        """Each process of a machine has the next GPU.

        Raises:
            ConfigError: there is none.
        """
        wanted = "gpu" if accelerator == "auto" and torch.cuda.is_available() else accelerator
        if wanted in ("gpu", "cuda") and torch.cuda.is_available():
            return torch.device("cuda", self.local_rank % torch.cuda.device_count())
        if wanted not in ("auto", "cpu"):
            given = f"accelerator={accelerator} on a machine without a CUDA device"
            raise ConfigError(explain(given, "a device of this machine", "set it to cpu"))
        return torch.device("cpu")


def ranks_of(devices: int | None, num_nodes: int | None = None) -> Ranks:
    """This process, and how many there are to be: a launcher's, or `devices` on this machine.

    Args:
        devices: processes on each machine; None for as many as the launcher started, or one; -1
            for one on each GPU.
        num_nodes: machines; None likewise.

    Raises:
        ConfigError: several machines without a launcher, or numbers that contradict it.
    """
    here = rank_info()
    given = {"devices": (devices, (-1, None)), "num_nodes": (num_nodes, (None,))}
    for name, (value, others) in given.items():
        if value not in others and not (type(value) is int and value > 0):
            more = ", or -1 for one on each GPU" if name == "devices" else ""
            what = "processes" if name == "devices" else "machines"
            expected = f"a number of {what} of at least 1{more}"
            raise ConfigError(explain(f"{name}={value}", expected, "set it"))
    if not here.external:
        devices = 1 if devices is None else devices
        if devices == -1:
            devices = max(1, torch.cuda.device_count())
        resolve_size(here, devices, 1 if num_nodes is None else num_nodes)
        return Ranks(0, devices, 0, external=False)
    resolve_size(here, devices, num_nodes)
    return Ranks(here.rank, here.world_size, here.local_rank, external=True)


def carry_out(work: Work, todo: list[int], job: Job, ranks: Ranks, compute: Compute) -> None:
    """Do this rank's share of the batches; rank 0 comes back when all ranks have done theirs.

    Args:
        work: the job's folder.
        todo: numbers of the batches that are left, the same on every rank.
        job: what the other processes open, where rank 0 starts them.
        ranks: this process.
        compute: what `job.open(ranks)` gave this process.

    Raises:
        RunError: a rank failed or was killed; says which.
    """
    try:
        _carry_out(work, todo, job, ranks, compute)
    except KeyboardInterrupt:
        if ranks.rank == 0:
            print("\nstopped; finished batches are kept: run the same command again to go on")
        raise


def _carry_out(work: Work, todo: list[int], job: Job, ranks: Ranks, compute: Compute) -> None:
    if ranks.external:
        with _told_to_rank_0(ranks):
            _work(work, todo[ranks.rank :: ranks.size], compute, ranks, lambda: _all_done(ranks))
        return
    shares = [todo[rank :: ranks.size] for rank in range(ranks.size)]
    with _Helpers(work, job, ranks, shares[1:]) as helpers:
        _work(work, shares[0], compute, ranks, helpers.check)


def _work(
    work: Work, numbers: list[int], compute: Compute, ranks: Ranks, check: Callable[[], bool]
) -> None:
    """This process's batches; on rank 0 with a bar over all, until `check` says so."""
    terminal = sys.stderr.isatty()
    with tqdm(
        total=sum(work.sizes),
        initial=work.finished_items(),
        unit="img",
        file=sys.stderr if terminal else Lines(sys.stderr),  # type: ignore[arg-type]
        mininterval=0.5 if terminal else 30.0,
        delay=0.0 if terminal else 10.0,  # what is done at once leaves no line in a log
        leave=False,
        disable=ranks.rank > 0,
    ) as bar:

        def advance() -> None:
            if not bar.disable:
                bar.update(work.finished_items() - bar.n)

        for number, tensors, metadata in compute(work, numbers):
            work.save(number, tensors, metadata)
            check()
            advance()
        while ranks.rank == 0 and not check():
            time.sleep(POLL)
            advance()


# ------------------------------------------------------------------ processes that rank 0 starts


class _Helpers:
    """The other processes, where there is no launcher; they end with this one, however it ends."""

    def __init__(self, work: Work, job: Job, ranks: Ranks, shares: list[list[int]]) -> None:
        context: Any = multiprocessing.get_context(START)
        self._threads = torch.get_num_threads()
        threads = max(1, self._threads // ranks.size)
        self.running: list[tuple[int, Any, Connection]] = []
        for rank, numbers in enumerate(shares, 1):
            if not numbers:
                continue
            ours, theirs = context.Pipe(duplex=False)
            place = replace(ranks, rank=rank, local_rank=rank)
            given = (work, numbers, job, place, threads, theirs)
            process = context.Process(target=_help, args=given)  # no daemon: it has loaders
            self.running.append((rank, process, ours))
        self._share = threads if self.running else self._threads

    def __enter__(self) -> _Helpers:
        try:
            for _, process, _ in self.running:
                process.start()
        except BaseException:
            self.__exit__()
            raise
        torch.set_num_threads(self._share)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._threads)
        for _, process, _ in self.running:
            if process.pid is not None:
                process.kill()
                process.join()

    def check(self) -> bool:
        """Whether all are done.

        Raises:
            RunError, or an error of the user's: what ended one of them.
        """
        for rank, process, connection in self.running:
            if process.exitcode not in (None, 0):
                told = _last_words(connection)
                if isinstance(told, USER_ERRORS):
                    raise told
                what = told or f"was killed (exit code {process.exitcode})"
                raise RunError(
                    explain(f"rank {rank} (process {process.pid}) {what}", "all ranks to finish",
                            "the same command goes on: finished batches are kept")
                )  # fmt: skip
        return all(process.exitcode == 0 for _, process, _ in self.running)


def _last_words(connection: Connection) -> Any:
    """What a process said before it ended; None where it could not."""
    try:
        return connection.recv() if connection.poll() else None
    except EOFError:
        return None


def _help(
    work: Work, numbers: list[int], job: Job, ranks: Ranks, threads: int, parent: Connection
) -> None:
    """What a process that rank 0 started does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches rank 0, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        _work(work, numbers, job.open(ranks), ranks, lambda: True)
    except USER_ERRORS as error:
        parent.send(error)
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        parent.send(f"failed: {type(error).__name__}: {error}"[:500])
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# ------------------------------------------------------------------ processes of a launcher


@contextmanager
def _told_to_rank_0(ranks: Ranks) -> Iterator[None]:
    """Rank 0 waits for the others: each tells it that it is done, or what ended it, for not every
    launcher ends the others then."""
    try:
        yield
        if ranks.rank > 0:
            store().set(f"done/{ranks.rank}", "")
    except RuntimeError as error:
        lost = ranks.rank > 0 and "onnect" in str(error) and not isinstance(error, USER_ERRORS)
        if not lost:
            _tell(ranks, error)
            raise
        given = f"rank 0, which joins the batches, is gone ({str(error).splitlines()[0][:200]})"
        raise RunError(
            explain(given, "it to wait", "see what it said; then the same command")
        ) from error
    except BaseException as error:
        _tell(ranks, error)
        raise


def _tell(ranks: Ranks, error: BaseException) -> None:
    if ranks.rank > 0:
        with suppress(RuntimeError):
            store().set("failed", f"rank {ranks.rank}: {type(error).__name__}: {error}"[:500])


def _all_done(ranks: Ranks) -> bool:
    """On rank 0, whether the others are.

    Raises:
        RunError: one of them failed.
    """
    if ranks.rank > 0 or ranks.size == 1:
        return True
    if store().check(["failed"]):
        raise RunError(store().get("failed").decode())
    return store().check([f"done/{rank}" for rank in range(1, ranks.size)])
