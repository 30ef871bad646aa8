"""The rule for larger batches, and whose numbers count when a run goes on."""

import pytest
import torch

from ganinv.optimizer.ranger import Ranger
from ganinv.optimizer.scale import restore_config_hparams, scale_for_batch
from ganinv.optimizer.schedule import set_lr_factor

NUMBERS = {"alpha": 0.5, "k": 6, "n_sma_threshold": 5, "weight_decay": 0.0}


def test_rate_betas_and_eps() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))

    def make(parameters):
        return Ranger(parameters, lr=1e-3, betas=(0.95, 0.999), eps=1e-5, **NUMBERS)

    (group,) = scale_for_batch(make, 4.0)([weight]).param_groups
    assert group["lr"] == pytest.approx(2e-3)
    assert group["betas"] == pytest.approx((0.8, 0.996)) and group["eps"] == pytest.approx(5e-6)
    (group,) = scale_for_batch(make, 16.0)([weight]).param_groups  # only the second average goes on
    assert group["lr"] == pytest.approx(2e-3)
    assert group["betas"] == pytest.approx((0.8, 0.984)) and group["eps"] == pytest.approx(5e-6)
    (group,) = scale_for_batch(make, 512.0)([weight]).param_groups
    assert group["betas"] == pytest.approx((0.8, 0.9))
    critic = scale_for_batch(lambda p: torch.optim.Adam(p, lr=1.0, betas=(0.0, 0.8)), 4.0)
    assert critic([weight]).param_groups[0]["betas"] == (0.0, 0.8)
    (group,) = scale_for_batch(lambda p: torch.optim.SGD(p, lr=1.0), 4.0)([weight]).param_groups
    assert group["lr"] == 2.0


def test_a_stream_of_images_moves_the_weights_as_far_in_larger_batches() -> None:
    """Noisy gradients of a slope: 4,096 images in batches of 8 and of 32."""

    def walked(batch, k):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.zeros(1000))
        factory = scale_for_batch(lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.9, 0.99)), k)
        optimizer = factory([weight])
        for _ in range(4096 // batch):
            weight.grad = 0.02 + torch.randn(1000) / batch**0.5
            optimizer.step()
        return -weight.mean().item()

    small, large, unscaled = walked(8, 1.0), walked(32, 4.0), walked(32, 1.0)
    assert large == pytest.approx(small, rel=0.15)
    assert unscaled < 0.6 * small


def test_a_resumed_run_takes_its_own_numbers() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    first = torch.optim.Adam([weight], lr=1.0, betas=(0.5, 0.9))
    set_lr_factor(first, 0.25)
    second = torch.optim.Adam([weight], lr=3.0, betas=(0.1, 0.2))
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == 0.25
    restore_config_hparams(second)
    (group,) = second.param_groups
    assert (group["lr"], group["betas"]) == (3.0, (0.1, 0.2))
    set_lr_factor(second, 0.5)
    assert group["lr"] == 1.5
