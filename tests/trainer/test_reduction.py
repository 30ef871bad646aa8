"""Gradients that leave during the backward pass: the mean, its bits, the order on every rank."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.method.restyle import IterativeRefinement
from ganinv.trainer.reduction import ALIGNED, buckets_of
from tests.method.test_players import Pair, fit
from tests.processes import launch_ready, server
from tests.runs import composed, plain_overrides
from tests.trainer.three_ranks import BUCKET, STEPS, WORLD, network, work


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [server.Process(target=work, args=(rank, folder)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def same(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> bool:
    """Bit for bit."""
    pairs = zip(first, second, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("step", STEPS)
def test_gradients_are_the_mean_over_ranks_whatever_each_one_used(
    step: str, ranks: list[dict[str, Any]]
) -> None:
    """A parameter that a rank did not use counts as zeros, one that nobody used has none; all ranks
    have the same bits, which are those of a run that begins here."""
    rows = [rank[step] for rank in ranks]
    for i, mean in enumerate(rows[0]["goes on"]):
        given = [row["mine"][i] for row in rows]
        held = [g for g in given if g is not None]
        if not held:
            assert mean is None, i
        else:
            torch.testing.assert_close(mean, torch.stack(held).sum(0) / WORLD)
    assert all(same(row["goes on"], rows[0]["goes on"]) for row in rows)
    assert all(same(row["fresh"], row["goes on"]) for row in rows)
    assert all(row["laid out"] for row in rows)


def test_buckets_leave_in_one_order_and_before_the_backward_pass_ends(
    ranks: list[dict[str, Any]],
) -> None:
    """Numbers are parameters that get their gradient, the last layer's bias first; in the first
    step nothing is known, and all buckets leave at the end."""
    for step in STEPS:
        sent = [[e for e in rank[step]["events"] if isinstance(e, str)] for rank in ranks]
        assert sent[0] == sent[1] == sent[2], step
    a, b, c = (f"{b.length} torch.float32" for b in buckets_of([*network().parameters()], BUCKET))
    two = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]  # one of two micro-batches
    assert [rank["first"]["events"] for rank in ranks] == [[*two, *two, a, b, c]] * 3
    leaving = [9, 8, 7, 6, a, 5, 4, 3, 2, b, 1, 0, c]
    assert [rank["same"]["events"] for rank in ranks] == [[*two, *leaving]] * 3
    without_4, without_0, without_2 = (rank["each another"]["events"] for rank in ranks)
    assert without_4[8:] == [7, 6, 5, 4, 3, 2, 1, 0, a, b, c]  # nothing overtakes what waits
    assert without_0[8:] == [9, 8, 7, 6, a, 5, 4, 3, 2, b, c]
    assert without_2[8:] == [9, 8, 7, 6, a, 3, 2, 1, 0, b, c]


def test_what_was_not_expected_leaves_in_its_own_bucket_once_more(
    ranks: list[dict[str, Any]],
) -> None:
    """And a bucket that nobody fills leaves once, empty, and then no more."""
    first, second, third = (4 * b.length for b in buckets_of([*network().parameters()], BUCKET))
    whole = first + second + third
    sent = {step: ranks[0][step]["bytes"] for step in STEPS}
    assert sent == {
        "first": whole,
        "same": whole,
        "each another": whole,
        "nobody one": whole,
        "nobody one again": whole,
        "one rank one": whole + second,
        "a whole bucket": whole,
        "a whole bucket again": second + third,
        "a whole bucket back": whole,
    }


def test_compressed_gradients_are_sums_of_rounded_ones(ranks: list[dict[str, Any]]) -> None:
    """Half of the bytes; each rank's gradient rounded to 8 bits, and their sum."""
    own, compressed = ranks[0]["bytes"]
    assert compressed * 2 == own
    for step in STEPS:
        rows = [rank[step] for rank in ranks]
        assert all(same(row["bf16"], rows[0]["bf16"]) for row in rows)
        for i, mean in enumerate(rows[0]["bf16"]):
            held = [row["mine"][i] for row in rows if row["mine"][i] is not None]
            assert (mean is None) == (not held)
            if held:
                largest = torch.stack(held).abs().sum(0)
                exact = torch.stack(held).sum(0) / WORLD
                assert mean.dtype == torch.float32 and not torch.equal(mean, exact)
                assert ((mean - exact).abs() <= largest * 2**-7 + 1e-30).all()


def test_the_layout_is_a_function_of_the_network_and_the_size() -> None:
    def make(count: int, kind: torch.dtype = torch.float32) -> nn.Parameter:
        return nn.Parameter(torch.zeros(count, dtype=kind))

    parameters = [make(3), make(30), make(1, torch.float64), make(16), make(17)]
    found = buckets_of(parameters, 4 * 48)
    assert [b.members for b in found] == [(4, 3), (2,), (1, 0)]
    assert [b.offsets for b in found] == [(0, 32), (0,), (0, 32)]
    assert [b.length for b in found] == [48, 16, 48]
    assert all(offset % ALIGNED == 0 for b in found for offset in b.offsets)
    assert [b.members for b in buckets_of(parameters, 0)] == [(4,), (3,), (2,), (1,), (0,)]
    assert buckets_of([], 10) == []


# ------------------------------------------------------------------ what a method sends


class Ranks:
    """A strategy that notes what it is asked for."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def sending_gradients(self, which: str, parameters: list[nn.Parameter]) -> Iterator[None]:
        assert all(p.requires_grad for p in parameters)
        self.events.append(f"open {which}")
        yield
        self.events.append("close")

    def reduce_gradients(self, parameters: list[nn.Parameter]) -> None:
        assert any(p.grad is not None for p in parameters)
        self.events.append("average")


def test_gradients_leave_in_the_last_micro_batch_of_each_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And are averaged before anything looks at them. Moves are counted anew in each step: ranks
    must call them alike, which they do by their order, whatever functions they descend."""
    pair, ranks = Pair(micro_batches=2), Ranks()
    backward = pair.manual_backward

    def noted(loss: Tensor) -> None:
        ranks.events.append("backward")
        backward(loss)

    def begin() -> None:
        pair.manual_backward = noted  # type: ignore[method-assign, assignment]
        for name in ("sending_gradients", "reduce_gradients"):
            monkeypatch.setattr(pair.trainer.strategy, name, getattr(ranks, name), raising=False)

    def step(x: Tensor, batch: Any) -> None:
        for player, loss in (("E", pair.loss_E), ("D", pair.loss_D), ("D", pair.loss_D)):
            pair.descend(player, loss, x, *[batch["position"]] * (player == "E"))

    pair.on_train_start = begin  # type: ignore[method-assign]
    pair.step = step  # type: ignore[method-assign]
    fit(pair, steps=2)
    expected = []
    for move in ("move 1 of E", "move 1 of D", "move 2 of D"):
        expected += ["backward", f"open {move}", "backward", "close", "average"]
    assert ranks.events == 2 * expected


def test_of_restyles_passes_the_last_one_sends() -> None:
    asked: list[str] = []

    def note(kind: str) -> Any:
        return lambda player, loss, *_: asked.append(f"{kind} {player} {loss.args}") or (0, 1)

    passes: Any = SimpleNamespace(
        refinements=3, model=SimpleNamespace(average=lambda s: (0, 0)), loss_pass=None,
        accumulate=note("accumulate"), descend=note("descend"),
    )  # fmt: skip
    passes.loss_pass = lambda *_: None
    IterativeRefinement.refine(passes, torch.zeros(1), torch.zeros(1), torch.zeros(1))
    assert asked == ["accumulate E (0,)", "accumulate E (1,)", "descend E (2,)"]


@pytest.mark.ddp
def test_a_run_with_small_compressed_buckets_stays_equal_on_all_ranks(
    assets: Any, tmp_path: Path
) -> None:
    """Two players, micro-batches, synchronised batch normalisation; a rank sends two bytes for each
    weight, and a few for what is logged."""
    words = [*plain_overrides("idinvert", *assets), "dataset.batch_size=2"]
    built = build_method(cfg := composed(words), instantiate(cfg.generator))
    most = sum(p.numel() for name in built.player_names for p in getattr(built, name).parameters())
    words += [
        "trainer.gradient_compression=bf16",
        "trainer.bucket_mb=0.01",
        "trainer.max_kimg=0.008",
    ]
    words += ["trainer.micro_batches=2", "trainer.sync_batchnorm=true"]
    launch_ready([*words, "trainer.compare_ranks_every=1"], tmp_path / "run", ranks=2)
    with open(tmp_path / "run" / "metrics.csv") as file:
        rows = [row["speed/reduced_mib_per_step"] for row in csv.DictReader(file)]
    sent = [float(mib) * 2**20 for mib in rows if mib]
    assert sent and all(2 * most <= count < 2.1 * most + 4000 for count in sent), (sent, most)
