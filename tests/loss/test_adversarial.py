"""The games and their penalties against hand-written gradients."""

import pytest
import torch
from torch import nn

from ganinv.loss.adversarial import (
    GAMES,
    gradient_penalty,
    logistic,
    non_saturating,
    r1_penalty,
    wgan_critic_loss,
    wgan_generator_loss,
)


def test_games_are_numbers_a_sample():
    real, fake = torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [3.0]])
    assert torch.equal(wgan_generator_loss(fake), torch.tensor([-0.5, -3.0]))
    assert torch.equal(wgan_critic_loss(real, fake), torch.tensor([-0.5, 5.0]))
    torch.testing.assert_close(non_saturating(fake), torch.log1p((-fake).exp()).flatten())
    expected = torch.log1p((-real).exp()) + torch.log1p(fake.exp())
    torch.testing.assert_close(logistic(real, fake), expected.flatten())


def test_gradient_penalty_is_one_at_slope_zero_and_zero_at_slope_one():
    real, fake = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    share = torch.tensor([0.0, 0.5, 1.0])
    flat = gradient_penalty(lambda x: (0 * x).sum((1, 2, 3)), real, fake, share)
    torch.testing.assert_close(flat, torch.ones(3))
    steep = gradient_penalty(lambda x: x.sum((1, 2, 3)) / 32**0.5, real, fake, share)
    torch.testing.assert_close(steep, torch.zeros(3))


def test_gradient_penalty_is_taken_between_the_two_and_reaches_the_critic():
    seen = []
    scale = torch.tensor(2.0, requires_grad=True)

    def critic(x):
        seen.append(x.detach())
        return (scale * x).square().sum((1, 2, 3)) / 2

    real, fake = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    share = torch.tensor([0.25, 1.0])
    penalty = gradient_penalty(critic, real, fake, share)
    between = torch.stack([0.25 * real[0] + 0.75 * fake[0], real[1]])
    torch.testing.assert_close(seen[0], between)
    norm = between.flatten(1).norm(dim=1)
    torch.testing.assert_close(penalty, (4 * norm - 1).square())
    (slope,) = torch.autograd.grad(penalty.sum(), scale)
    torch.testing.assert_close(slope, (2 * (4 * norm - 1) * 4 * norm).sum())


def test_r1_is_the_squared_slope_on_reals():
    x = torch.rand(3, 1, 2, 2)
    penalty = r1_penalty(lambda x: (x.square().sum((1, 2, 3)) / 2)[:, None], x)
    torch.testing.assert_close(penalty, x.square().sum((1, 2, 3)))


@pytest.mark.parametrize("name", list(GAMES))
def test_penalties_and_their_gradients_are_float32_under_autocast(name):
    """In bfloat16 R1's gradient is a third off; the backward pass is outside, as in `descend`."""
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(8 * 36, 1)
    )
    real, fake, share = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.rand(4)

    def gradient():
        return torch.autograd.grad(penalty.sum(), list(critic.parameters())[:1])[0]

    penalty = GAMES[name].penalty(critic, real, fake, share)
    expected, slope = penalty.detach(), gradient()
    with torch.autocast("cpu", torch.bfloat16):
        assert critic(real).dtype == torch.bfloat16
        penalty = GAMES[name].penalty(critic, real, fake, share)
    assert penalty.dtype == torch.float32 and torch.equal(penalty, expected)
    assert torch.equal(gradient(), slope)
