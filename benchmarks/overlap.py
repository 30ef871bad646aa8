"""A step of two ranks joined by a slow link, with and without gradients that leave during it.

    python benchmarks/overlap.py [--cases 32:0.1 32:0.2 ...] [--bucket-mb 1] [--json FILE]

Needs Linux, root, and iproute2: each rank runs in a network namespace of its own, on a core of its
own, with one thread; a veth pair joins them, and `tc ... tbf` limits what either end sends. Method:
pSp on the built-in domain. Both ranks begin each measured piece together, the slower one counts,
the pieces take turns, and medians are reported:

    compute    a step of each rank for itself, at the same time: no link
    transfer   the all-reduce of E's gradients, nothing beside it
    at end     a step whose gradients leave when its backward pass is over
    overlap    a step as ganinv trains: they leave while it runs
    bf16       the same, compressed

A case is a batch of each rank and a rate of the link, by the share of `compute` that the transfer
would take at full rate. E's first gradient exists when the losses, the backward pass through them
and that through G are over, and after the last one the optimizer has its turn: nothing is sent
before the one or after the other. "/ longer" is `overlap` by the larger of compute and transfer,
"bound" the least that it could be.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, Literal

import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from torch import Tensor

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.core.safe.io import write_atomic
from ganinv.method.psp import PSp
from ganinv.trainer.reduction import Reduction

ROOT = Path(__file__).resolve().parents[1]
PORT, LINK = 29400, "overlap{rank}"  # an interface's name, in either namespace
ADDRESS = "10.213.77.{number}"  # of that interface
BURST, QUEUE = "128kb", "400ms"  # of tbf
CASES = ["32:0.1", "32:0.2", "32:0.5", "32:1", "4:8"]
PIECES = ("compute", "transfer", "at end", "overlap", "bf16")


# ------------------------------------------------------------------ the link


def ip(*words: str) -> None:
    """Run iproute2."""
    subprocess.run(words, check=True, capture_output=True, text=True)


@contextmanager
def joined_namespaces() -> Iterator[list[str]]:
    """Two namespaces with a veth pair between them; gone afterwards."""
    names = [f"ganinv-{os.getpid()}-{rank}" for rank in range(2)]
    links = [LINK.format(rank=rank) for rank in range(2)]
    made: list[str] = []
    try:
        for name in names:
            ip("ip", "netns", "add", name)
            made.append(name)
        first, second = ((link, "netns", name) for link, name in zip(links, names, strict=True))
        ip("ip", "link", "add", *first, "type", "veth", "peer", "name", *second)
        for rank, (name, link) in enumerate(zip(names, links, strict=True)):
            address = ADDRESS.format(number=rank + 1)
            ip("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("ip", "-n", name, "link", "set", link, "up")
            ip("ip", "-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in made:
            ip("ip", "netns", "del", name)


def limit(rank: int, mbit: float) -> None:
    """What this rank's end of the link sends in a second."""
    link = LINK.format(rank=rank)
    rate = ["tbf", "rate", f"{mbit:.3f}mbit", "burst", BURST, "latency", QUEUE]
    ip("tc", "qdisc", "replace", "dev", link, "root", *rate)


# ------------------------------------------------------------------ a rank


class AtEnd:
    """A trainer's strategy whose gradients leave when the backward pass is over."""

    def __init__(self, bucket_mb: float, compression: Literal["bf16"] | None) -> None:
        group, cpus = dist.new_group(), dist.new_group()
        size = round(bucket_mb * 2**20)
        self.reduction = Reduction(
            bucket_bytes=size, compression=compression, group=group, cpus=cpus
        )
        self.reduce_gradients = self.reduction.finish


class Overlapping(AtEnd):
    """As ganinv trains."""

    def __init__(self, bucket_mb: float, compression: Literal["bf16"] | None = None) -> None:
        super().__init__(bucket_mb, compression)
        self.sending_gradients = self.reduction.during_backward


def method() -> PSp:
    """pSp of `python train.py`, its optimizer made, without a trainer around it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=["method=psp", "name=overlap"])
    torch.manual_seed(0)
    built = build_method(cfg, instantiate(cfg.generator)).train()
    assert isinstance(built, PSp)
    optimizers = built.configure_optimizers()
    built.optimizers = lambda *_, **__: optimizers  # type: ignore[assignment, method-assign]
    built.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    return built


class Rank:
    """One of two, and what it measures.

    Args:
        rank: 0 or 1.
        bucket_mb: as `trainer.bucket_mb`.
    """

    batch: dict[str, Any]

    def __init__(self, rank: int, bucket_mb: float) -> None:
        self.rank, self.method = rank, method()
        self.size = 4 * sum(p.numel() for p in self.method.E.parameters())
        self.strategies = {
            "compute": object(),
            "at end": AtEnd(bucket_mb, None),
            "overlap": Overlapping(bucket_mb),
            "bf16": Overlapping(bucket_mb, "bf16"),
        }

    def draw(self, batch: int) -> None:
        """Images of the steps to come; the first of each kind learns what the graph uses."""
        images = torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8)
        position = torch.arange(self.rank, 2 * batch, 2)
        self.batch = {"image": images, "position": position, "key": [""] * batch}
        for name in self.strategies:
            self.step(name)

    def step(self, name: str) -> None:
        """A step of this kind."""
        trainer: Any = SimpleNamespace(
            strategy=self.strategies[name], world_size=1, global_rank=self.rank
        )
        self.method.trainer = trainer
        self.method.training_step(self.batch, 0)  # type: ignore[arg-type]

    def seconds(self, work: Callable[[], None]) -> float:
        """Of both ranks, which begin together: the slower one's."""
        dist.barrier()
        begun = time.perf_counter()
        work()
        took = torch.tensor(time.perf_counter() - begun)
        dist.all_reduce(took, dist.ReduceOp.MAX)
        return float(took)

    def transfer(self) -> None:
        """The average of gradients of E."""
        strategy = self.strategies["at end"]
        assert isinstance(strategy, AtEnd)
        strategy.reduce_gradients(list(self.method.E.parameters()))

    def piece(self, name: str) -> float:
        """Seconds of one of PIECES."""
        if name != "transfer":
            return self.seconds(lambda: self.step(name))
        for p in self.method.E.parameters():
            p.grad = torch.zeros_like(p)
        try:
            return self.seconds(self.transfer)
        finally:
            self.method.E.zero_grad()

    def gradients_span(self) -> tuple[float, float]:
        """The parts of a step after which E has its first gradient, and its last."""
        came: list[float] = []

        def note(_: Tensor) -> None:
            came.append(time.perf_counter())

        hooks = [p.register_post_accumulate_grad_hook(note) for p in self.method.E.parameters()]
        dist.barrier()
        begun = time.perf_counter()
        self.step("compute")
        took = time.perf_counter() - begun
        for hook in hooks:
            hook.remove()
        return (came[0] - begun) / took, (came[-1] - begun) / took

    def measure(self, cases: list[str], rounds: int) -> list[dict[str, Any]]:
        """A row a case; equal on both ranks but for the span of the gradients."""
        rows: list[dict[str, Any]] = []
        known: dict[int, tuple[float, float, float]] = {}
        for case in cases:
            batch, share = int(case.split(":")[0]), float(case.split(":")[1])
            if batch not in known:
                self.draw(batch)
                compute = median(self.piece("compute") for _ in range(rounds))
                spans = zip(*(self.gradients_span() for _ in range(rounds)), strict=True)
                first, last = map(median, spans)
                known[batch] = compute, first, last
            compute, first, last = known[batch]
            mbit = 8e-6 * self.size / (share * compute)  # of two ranks each sends its size once
            limit(self.rank, mbit)
            taken: dict[str, list[float]] = {name: [] for name in PIECES}
            for number in range(rounds + 1):
                for name in PIECES:
                    took = self.piece(name)
                    taken[name] += [took] * (number > 0)
            row = {"batch": batch, "mbit": mbit, "gradients_from": first, "gradients_until": last}
            rows.append(row | {name: median(times) for name, times in taken.items()})
        return rows


def run_rank(args: argparse.Namespace) -> None:
    """In a namespace."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[args.rank % len(cores)]})
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = LINK.format(rank=args.rank)
    host, wait = ADDRESS.format(number=1), timedelta(minutes=5)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, PORT, 2, is_master=args.rank == 0, timeout=wait
    )
    dist.init_process_group("gloo", store=store, rank=args.rank, world_size=2, timeout=wait)
    one = Rank(args.rank, args.bucket_mb)
    if args.rank == 0:
        print("measuring", file=sys.stderr, flush=True)
    rows = one.measure(args.cases, args.rounds)
    if args.rank == 0:
        print(json.dumps({"gradient_bytes": one.size, "rows": rows}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


# ------------------------------------------------------------------ both


def with_ratios(row: dict[str, Any]) -> dict[str, Any]:
    """`overlap` by the larger of compute and transfer, and the least that this could be."""
    longer = max(row["compute"], row["transfer"])
    without = 1 - (row["gradients_until"] - row["gradients_from"])  # before, and after
    least = max(row["compute"], without * row["compute"] + row["transfer"])
    return row | {"overlap_by_longer": row["overlap"] / longer, "bound_by_longer": least / longer}


def table(rows: list[dict[str, Any]]) -> str:
    """For the terminal: milliseconds."""
    heads = ("batch", "Mbit/s", *PIECES, "/ longer", "bound", "gradients come within")
    lines = [" ".join(f"{head:>9}" for head in heads)]
    for row in rows:
        numbers = [f"{row['batch']}", f"{row['mbit']:.0f}"]
        numbers += [f"{1000 * row[name]:.0f}" for name in PIECES]
        numbers += [f"{row[f'{name}_by_longer']:.2f}" for name in ("overlap", "bound")]
        numbers += [f"{row['gradients_from']:.0%} - {row['gradients_until']:.0%} of compute"]
        lines.append(" ".join(f"{number:>9}" for number in numbers))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, help="BATCH:SHARE, see above")
    parser.add_argument("--bucket-mb", type=float, default=1.0, help="E here has 22 MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/overlap.json")
    args = parser.parse_args()
    if args.rank is not None:
        run_rank(args)
        return
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        sys.exit("this makes network namespaces: run it as root, on Linux, with iproute2")
    load = os.getloadavg()[0]
    with joined_namespaces() as names:
        ranks = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, *sys.argv, "--rank", str(rank)],
                env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, name in enumerate(names)
        ]
        said, _ = (rank.communicate()[0] for rank in ranks)
    if any(rank.returncode for rank in ranks):
        sys.exit("a rank failed, see above")
    found = json.loads(said.splitlines()[-1])
    found["rows"] = [with_ratios(row) for row in found["rows"]]
    print(table(found["rows"]))
    settings = {"bucket_mb": args.bucket_mb, "rounds": args.rounds}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": load}
    result = settings | machine | {"torch": torch.__version__} | found
    write_atomic(args.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
