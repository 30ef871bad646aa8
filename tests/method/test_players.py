"""`descend`: what moves, what is logged, what is handed out, and what a broken gradient does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ganinv.core.errors import NotFinite
from ganinv.method.base import Method
from tests.method.curves import batches, trained_steps
from tests.runs import METHODS, overrides, plain_overrides


class Pair(Method):
    """E is a line with a normalisation in front, D another line; both see x [B,1]."""

    def __init__(self, *, micro_batches: int = 1, max_nonfinite: int = 3) -> None:
        super().__init__(
            seed=0, micro_batches=micro_batches, clip_norm=None, max_nonfinite=max_nonfinite
        )
        sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5)  # noqa: E731
        self.add_player("E", nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)), sgd)
        self.add_player("D", nn.Linear(1, 1), sgd)
        for player in (self.E[1], self.D):
            nn.init.ones_(player.weight)
            nn.init.zeros_(player.bias)
        self.E[0].eval()
        self.broken: dict[str, Any] = {}  # player -> images seen at which its gradient is NaN
        self.handed_out: Any = None
        self.autocast: list[bool] = []

    def images(self, batch: Any) -> Tensor:
        return batch["position"][:, None].float()

    def step(self, x: Tensor, batch: Any) -> None:
        self.handed_out = self.descend("E", self.loss_E, x, batch["position"])
        self.descend("D", self.loss_D, x)

    def factor(self, player: str) -> float:
        return math.nan if self.images_seen in self.broken.get(player, ()) else 1.0

    def loss_E(self, x: Tensor, position: Tensor) -> Any:
        assert not any(p.requires_grad for p in self.D.parameters())
        y = Watched.apply(self.E(x * self.factor("E"))[:, 0], self.autocast)
        return {"square": (2.0, y.square()), "seen": (0, y)}, y, position

    def loss_D(self, x: Tensor) -> Any:
        assert not any(p.requires_grad for p in self.E.parameters())
        return {"line": (1.0, self.factor("D") * self.D(x)[:, 0])}


class Watched(torch.autograd.Function):
    """The identity; notes whether its backward pass runs under autocast."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, seen: list[bool]) -> Tensor:
        ctx.seen = seen
        return y.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.seen.append(torch.is_autocast_enabled("cpu"))
        return gradient, None


def fit(method: Method, steps: int = 1, **more: Any) -> None:
    data = [{"key": ["", ""], "position": torch.arange(2 * i + 1, 2 * i + 3)} for i in range(steps)]
    pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    ).fit(method, DataLoader(data, batch_size=None))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_by_hand(micro_batches: int) -> None:
    """E at x = 1, 2: y = x, total = 2 mean y^2 = 5, slope 4 mean y x = 10; D's slope is mean x."""
    pair = Pair(micro_batches=micro_batches)
    pair.on_train_batch_start = lambda *_: pair.E[0].eval()  # type: ignore[method-assign]
    fit(pair)
    assert pair.E[1].weight.item() == pytest.approx(1 - 0.5 * 10, rel=1e-4)
    assert pair.D.weight.item() == pytest.approx(1 - 0.5 * 1.5)
    values = {name: value.item() for name, value in pair.values.items()}
    expected = {"square": 2.5, "seen": 1.5, "total": 5.0, "D/line": 1.5, "D/total": 1.5}
    assert {n: values[n] for n in expected} == pytest.approx(expected, rel=1e-4)
    assert set(values) == {*expected, "grad_norm/E", "grad_norm/D"}
    y, position = pair.handed_out  # of the whole batch, in order, without a graph
    assert y.tolist() == pytest.approx([1, 2], rel=1e-4) and not y.requires_grad
    assert position.tolist() == [1, 2]
    assert all(p.requires_grad for p in pair.parameters())


def test_a_backward_pass_runs_outside_autocast() -> None:
    pair = Pair()
    fit(pair, precision="bf16-mixed")
    assert pair.autocast == [False]


@pytest.mark.parametrize("player", ["E", "D"])
@pytest.mark.parametrize("broken", [range(100), (0, 2, 4)])
def test_a_player_that_alone_is_broken_ends_the_run(player: str, broken: Any) -> None:
    """When the counts are read: at the latest in the end, and also if it has recovered."""
    pair = Pair()
    pair.broken[player] = broken
    said = rf"the gradient of {player} was not finite 3 steps in a row \(images seen: 4\)"
    with pytest.raises(NotFinite, match=said):
        fit(pair, steps=5)


def test_counts_are_those_of_the_last_reading() -> None:
    """A step reads none; what was counted before a resume goes on."""
    pair, seen = Pair(), []
    pair.skipped.restore(7, {"E": 2})
    pair.broken["E"] = (2,)
    pair.on_train_batch_end = lambda *_: seen.append(pair.nonfinite)  # type: ignore[method-assign]
    fit(pair, steps=2)
    assert seen == [7, 7] and pair.nonfinite == 8
    assert pair.skipped.in_a_row == {"E": 1, "D": 0}
    with pytest.raises(NotFinite, match=r"of E was not finite 3 steps in a row \(images seen: 0"):
        again = Pair()
        again.skipped.restore(7, {"E": 2})
        again.broken["E"] = (0,)
        fit(again)


def test_steps_in_a_row_are_counted_for_each_player() -> None:
    """E at 0, 2 and 6, D at 4: never three in a row of either."""
    pair = Pair()
    pair.broken = {"E": (0, 2, 6), "D": (4,)}
    fit(pair, steps=5)
    assert pair.nonfinite == 4 and pair.images_seen == 10
    assert pair.skipped.in_a_row == {"E": 0, "D": 0}


def test_a_skipped_step_moves_nothing_after_it_and_no_running_statistic() -> None:
    pair = Pair()
    pair.broken = {"E": (0,)}
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    fit(pair)
    assert pair.nonfinite == 1
    for name, value in pair.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_no_method_is_poisoned_by_images_that_are_not_finite(method: str, assets: Any) -> None:
    """NaN images at the second of four steps: statistics, pools, averages and optimizers stay
    sound, and so does everything measured afterwards."""
    built, steps = trained_steps(
        method,
        assets[0],
        list(batches(method == "bdinvert", 4)),
        nan_at=4,
        more=plain_overrides(method, *assets)[len(overrides(method, *assets)) :],
    )
    assert built.nonfinite == 1
    states = [*built.state_dict().items()]
    for optimizer in built.trainer.optimizers:
        states += [(k, v) for s in optimizer.state.values() for k, v in s.items()]
    broken = [n for n, v in states if isinstance(v, Tensor) and not v.isfinite().all()]
    assert not broken
    assert all(math.isfinite(v) for step in steps[2:] for v in step.values())
