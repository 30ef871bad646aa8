"""Latent terms, the adversarial game and R1 against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ganinv.loss.adversarial import logistic, non_saturating, r1_penalty
from ganinv.loss.latent import Delta, LatentAdversarial, LatentNorm


def test_norm_is_frobenius_over_the_whole_code() -> None:
    wp = torch.zeros(2, 2, 2)
    wp[1] = torch.tensor([[4.0, 1.0], [1.0, 5.0]])
    w_avg = torch.ones(2)
    value = LatentNorm(weight=1.0)(wp, w_avg)
    torch.testing.assert_close(value, torch.tensor([2.0, 5.0]))


def test_delta_sums_over_opened_rows() -> None:
    wp = torch.zeros(2, 4, 2)
    wp[:, :] = torch.tensor([1.0, 1.0])
    wp[0, 1] += torch.tensor([3.0, 4.0])
    wp[0, 2] += torch.tensor([0.0, 2.0])
    wp[1, 3] += torch.tensor([6.0, 8.0])
    for stage, expected in [(0, [0, 0]), (1, [5, 0]), (2, [7, 0]), (3, [7, 10]), (None, [7, 10])]:
        value = Delta(weight=1.0, p=2)(wp, stage)
        assert value.tolist() == expected
    assert Delta(weight=1.0, p=1)(wp, None).tolist() == [9, 14]


@pytest.mark.parametrize(
    ("term", "rest"), [(Delta(weight=1.0, p=2), None), (LatentNorm(weight=1.0), torch.ones(4))]
)
def test_gradient_is_finite_where_the_norm_is_zero(term: nn.Module, rest: object) -> None:
    wp = torch.ones(2, 3, 4, requires_grad=True)
    term(wp, rest).sum().backward()
    assert wp.grad is not None and not wp.grad.any()


def test_adversarial_asks_about_opened_rows_only() -> None:
    asked = []

    def critic(w: torch.Tensor) -> torch.Tensor:
        asked.append(w.shape)
        return w[:, :1]

    wp = torch.arange(24.0).reshape(2, 4, 3)
    value = LatentAdversarial(weight=0.1)(wp, stage=1, critic=critic)
    assert asked == [(4, 3)]
    expected = [
        (math.log1p(math.exp(-a)) + math.log1p(math.exp(-b))) / 2 for a, b in ((0, 3), (12, 15))
    ]
    torch.testing.assert_close(value, torch.tensor(expected))


def test_game() -> None:
    logits = torch.tensor([[0.0], [100.0], [-100.0]])
    assert non_saturating(logits).tolist() == pytest.approx([math.log(2), 0, 100])
    assert logistic(logits, logits).tolist() == pytest.approx([2 * math.log(2), 100, 100])


def test_r1_by_hand_and_differentiable() -> None:
    """D(x) = a sum x^2 has ||grad||^2 = 4 a^2 ||x||^2, whose derivative by a is 8 a ||x||^2."""
    a = torch.tensor(3.0, requires_grad=True)
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    penalty = r1_penalty(lambda x: a * x.square().sum(1, keepdim=True), x)
    assert penalty.tolist() == [4 * 9 * 5, 4 * 9 * 1]
    penalty.sum().backward()
    assert a.grad is not None and a.grad.item() == pytest.approx(8 * 3 * 6)
    assert r1_penalty(lambda image: image.mean((1, 2, 3)), torch.randn(2, 3, 4, 4)).shape == (2,)
