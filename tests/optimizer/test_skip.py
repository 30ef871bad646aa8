"""A step that a number on the device leaves out, for optimizers that take it and for others."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganinv.optimizer.ranger import Ranger
from ganinv.optimizer.skip import laid_out_as, settle_states, step_unless, takes_found_inf
from tests.optimizer.test_ranger import SETTINGS

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
ADAM = {"lr": 1e-2, "betas": (0.9, 0.99)}
TAKING: dict[str, Make] = {
    "ranger": partial(Ranger, **SETTINGS | {"k": 2, "weight_decay": 0.1}),
    "fused adam": partial(torch.optim.Adam, **ADAM, fused=True),
}
OTHERS: dict[str, Make] = {
    "adam": partial(torch.optim.Adam, **ADAM),
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    kernel = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    return [nn.Parameter(kernel), nn.Parameter(torch.randn(5))]


def step(optimizer: Any, weights: list[nn.Parameter], seed: int, broken: bool) -> None:
    """With gradients of a seed; a broken one has a NaN in each."""
    draw = torch.Generator().manual_seed(seed)
    for p in weights:
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=draw))
        if broken:
            p.grad[(0,) * p.ndim] = math.nan
    step_unless(torch.tensor(broken), optimizer)


def moved(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter]) -> list[Tensor]:
    """Weights and moments; not the count of steps."""
    states = [v for p in weights for k, v in optimizer.state[p].items() if k != "step"]
    return [v.detach().clone() for v in [*weights, *states] if isinstance(v, Tensor)]


@pytest.mark.parametrize("name", [*TAKING, *OTHERS])
def test_a_step_that_is_left_out_moves_nothing(name: str) -> None:
    """At steps 2 and 4, at the second of which Ranger would look ahead."""
    weights, make = parameters(), (TAKING | OTHERS)[name]
    optimizer = make(weights)
    assert takes_found_inf(optimizer) == (name in TAKING)
    for number in range(1, 8):
        before = moved(optimizer, weights)
        step(optimizer, weights, number, broken := number in (2, 4))
        after = moved(optimizer, weights)
        same = all(torch.equal(a, b) for a, b in zip(before, after[: len(before)], strict=True))
        assert same == broken and all(value.isfinite().all() for value in after)
        assert not hasattr(optimizer, "found_inf")  # of that step alone


def test_apple_s_gpus_take_the_number_and_do_not_look_at_it() -> None:
    """Their fused kernels would move weights by NaN: the number is read there."""
    optimizer = TAKING["ranger"](parameters())
    there = SimpleNamespace(device=torch.device("mps"))
    assert takes_found_inf(optimizer)
    optimizer.param_groups[0]["params"].append(there)
    assert not takes_found_inf(optimizer)


@pytest.mark.parametrize("name", TAKING)
def test_a_step_that_is_taken_is_the_optimizer_s_own(name: str) -> None:
    """Bit for bit, but where Ranger looks ahead by a factor that it does not know."""
    ours, own = parameters(), parameters()
    first, second = TAKING[name](ours), TAKING[name](own)
    for number in range(6):
        step(first, ours, number, False)
        for p, q in zip(ours, own, strict=True):
            assert p.grad is not None
            q.grad = p.grad.clone()
        second.step()
    for a, b in zip(ours, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_second_of_two_looks_ahead_lands_where_the_slow_weights_are() -> None:
    weights = parameters()
    optimizer = TAKING["ranger"](weights)
    for number in range(4):
        step(optimizer, weights, number, False)
    for p in weights:
        assert torch.equal(optimizer.state[p]["slow_buffer"], p)


def test_a_layout_of_memory_is_taken_over() -> None:
    like = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 2, 2)
    found = laid_out_as(x, like)
    assert torch.equal(found, x) and found.stride() == like.stride()
    assert laid_out_as(found, like) is found
    flat = torch.randn(4, 3, 1, 1)  # the same memory under other strides: nothing is copied
    same = laid_out_as(flat, torch.zeros(4, 3, 1, 1).to(memory_format=torch.channels_last))
    assert torch.equal(same, flat) and same.data_ptr() == flat.data_ptr()


@pytest.mark.parametrize("name", TAKING)
def test_states_that_lie_otherwise_go_on_as_the_same_run(name: str) -> None:
    """Of a checkpoint of contiguous tensors: a fused update goes through all of them alike."""
    straight, again = parameters(), parameters()
    first = TAKING[name](straight)
    for number in range(3):
        step(first, straight, number, False)
    second = TAKING[name](again)
    saved = copy.deepcopy(first.state_dict())
    for state in saved["state"].values():
        state |= {k: v.contiguous() for k, v in state.items() if torch.is_tensor(v)}
    second.load_state_dict(saved)
    settle_states(second)
    for p, q in zip(straight, again, strict=True):
        q.data.copy_(p.data)
    for number in range(3, 6):
        step(first, straight, number, False)
        step(second, again, number, False)
    assert all(torch.equal(p, q) for p, q in zip(straight, again, strict=True))
