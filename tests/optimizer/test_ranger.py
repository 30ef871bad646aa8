"""Ranger against a plain loop over parameters, written from its equations."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganinv.optimizer import ranger
from ganinv.optimizer.ranger import Ranger, plain_update, rectification

SETTINGS: dict[str, Any] = dict(
    lr=1e-2, alpha=0.5, k=6, betas=(0.95, 0.999), n_sma_threshold=5, eps=1e-5, weight_decay=0.0
)


class PlainRanger:
    """One parameter at a time, in float64."""

    def __init__(self, p: Tensor, decay: float = 0.0) -> None:
        self.p, self.slow = p.double(), p.double()
        self.m, self.v, self.t, self.decay = (
            torch.zeros_like(self.p),
            torch.zeros_like(self.p),
            0,
            decay,
        )

    def step(self, gradient: Tensor) -> None:
        lr, (b1, b2) = SETTINGS["lr"], SETTINGS["betas"]
        g = gradient.double()
        if g.dim() > 1:
            g = g - g.flatten(1).mean(1).reshape(-1, *[1] * (g.dim() - 1))
        self.t += 1
        self.m = b1 * self.m + (1 - b1) * g
        self.v = b2 * self.v + (1 - b2) * g * g
        self.p = self.p - lr * self.decay * self.p
        rho_inf = 2 / (1 - b2) - 1
        rho = rho_inf - 2 * self.t * b2**self.t / (1 - b2**self.t)
        m_hat = self.m / (1 - b1**self.t)
        if rho > 5:
            radicand = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            r = math.sqrt((1 - b2**self.t) * radicand)
            self.p = self.p - lr * r * m_hat / (self.v.sqrt() + 1e-5)
        else:
            self.p = self.p - lr * m_hat
        if self.t % 6 == 0:
            self.slow = self.slow + 0.5 * (self.p - self.slow)
            self.p = self.slow.clone()


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [
        nn.Parameter(torch.randn(s)) for s in ((4, 3, 3, 3), (5, 4), (7,), (4, 3, 1, 1), (2, 6))
    ]


def gradients(step: int) -> list[Tensor | None]:
    """The last parameter has a gradient from step 4 on; one pauses at step 9."""
    g = torch.Generator().manual_seed(step)
    drawn: list[Tensor | None] = [torch.randn(p.shape, generator=g) for p in parameters()]
    if step < 4:
        drawn[4] = None
    if step == 9:
        drawn[1] = None
    return drawn


def give(params: list[nn.Parameter], step: int) -> None:
    for p, g in zip(params, gradients(step), strict=True):
        p.grad = g


@pytest.mark.parametrize("update", [None, plain_update], ids=["fused", "for a compiler"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_the_plain_loop(decay: float, update: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranger, "AT_ONCE", 2)
    params = parameters()
    optimizer = Ranger(params, **SETTINGS | {"weight_decay": decay})
    optimizer.update = update
    plain = [PlainRanger(p.detach(), decay) for p in params]
    for step in range(40):
        give(params, step)
        optimizer.step()
        for reference, g in zip(plain, gradients(step), strict=True):
            if g is not None:
                reference.step(g)
        for p, reference in zip(params, plain, strict=True):
            torch.testing.assert_close(p.detach().double(), reference.p, rtol=1e-5, atol=1e-6)
    assert [optimizer.state[p]["step"] for p in params] == [40, 39, 40, 40, 36]
    assert set(optimizer.state[params[0]]) == {"step", "exp_avg", "exp_avg_sq", "slow_buffer"}


@pytest.mark.parametrize(
    ("t", "factor"), [(6, 0.0075), (10, 0.0122), (100, 0.067), (1000, 0.51), (5000, 0.98)]
)
def test_table_of_factors(t: int, factor: float) -> None:
    r = rectification(t, 0.999, 5)
    assert r is not None
    digits = len(str(factor)) - 2
    assert round(r / (1 - 0.95**t), digits) == factor


def test_adaptive_from_the_sixth_step() -> None:
    assert rectification(5, 0.999, 5) is None and rectification(6, 0.999, 5) is not None


def test_both_forms_leave_out_what_is_not_finite() -> None:
    """The one for a compiler as torch's fused kernel: nothing moves, t does."""
    found = []
    for update in (None, plain_update):
        params = parameters()
        optimizer = Ranger(params, **SETTINGS)
        optimizer.update = update  # type: ignore[assignment]
        for step in range(8):
            give(params, step)
            broken = step in (3, 5)  # the sixth would look ahead
            if broken:
                params[0].grad.fill_(float("nan"))  # type: ignore[union-attr]
                before = copy.deepcopy([p.detach() for p in params])
            optimizer.found_inf = torch.tensor(float(broken))  # type: ignore[attr-defined]
            optimizer.step()
            if broken:
                assert all(torch.equal(a, p) for a, p in zip(before, params, strict=True))
        found.append((params, optimizer.state_dict()["state"]))
    for p, q in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    for i, state in found[0][1].items():
        torch.testing.assert_close(state, found[1][1][i], rtol=1e-6, atol=1e-7)


def test_resumed_is_the_same_run_bit_for_bit() -> None:
    straight, cut = parameters(), parameters()
    first, second = Ranger(straight, **SETTINGS), Ranger(cut, **SETTINGS)
    for step in range(20):
        give(straight, step)
        first.step()
    for step in range(11):
        give(cut, step)
        second.step()
    saved = copy.deepcopy((second.state_dict(), [p.detach() for p in cut]))
    again = [nn.Parameter(p) for p in saved[1]]
    third = Ranger(again, **SETTINGS | {"lr": 1.0})
    third.load_state_dict(saved[0])
    for step in range(11, 20):
        give(again, step)
        third.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, again, strict=True))


def test_reads_the_released_state_layout() -> None:
    params = parameters()[:1]
    optimizer = Ranger(params, **SETTINGS)
    group = dict(
        lr=1e-4,
        alpha=0.5,
        k=6,
        step_counter=0,
        betas=(0.95, 0.999),
        N_sma_threshhold=5,
        eps=1e-5,
        weight_decay=0,
        params=[0],
    )
    moments = {key: torch.ones_like(params[0]) for key in ("exp_avg", "exp_avg_sq", "slow_buffer")}
    optimizer.load_state_dict({"state": {0: {"step": 5, **moments}}, "param_groups": [group]})
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 6  # a multiple of k: the slow weights were used
    assert torch.equal(optimizer.state[params[0]]["slow_buffer"], params[0])


def test_lookahead_starts_from_the_first_value() -> None:
    p = nn.Parameter(torch.full((3,), 2.0))
    optimizer = Ranger([p], **SETTINGS | {"k": 1, "n_sma_threshold": 1e9})
    p.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 2.0 - 0.5 * SETTINGS["lr"]))


def test_closure_and_no_gradients() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = Ranger([p], **SETTINGS)
    assert optimizer.step() is None and not optimizer.state

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2.0
    assert (p < 1).all()


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"k": 0}, {"lr": -1.0}, {"eps": 0.0}])
def test_refuses_impossible_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 < alpha <= 1"):
        Ranger(parameters(), **SETTINGS | wrong)
