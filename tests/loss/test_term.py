"""How terms are measured, weighed and summed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError
from ganinv.loss.latent import Delta, LatentAdversarial, LatentNorm
from ganinv.loss.perceptual import Perceptual
from ganinv.loss.pixel import L2
from ganinv.loss.term import Terms


class Stages(nn.Module):
    """Two stages: the image and a convolution of it, with a batch norm that would drift."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def stages(self, image: Tensor) -> list[Tensor]:
        return [image, self.norm(self.conv(image))]


def test_names_weights_and_null() -> None:
    terms = Terms({"l2": L2(weight=2.0), "again": L2(weight=0.5), "lpips": None})
    x_hat, x = torch.ones(2, 3, 4, 4, requires_grad=True), torch.zeros(2, 3, 4, 4)
    values = terms.image(x_hat, x)
    assert list(values) == ["l2", "again"]
    assert all(value.shape == (2,) for value in values.values())
    assert terms.total(values).item() == pytest.approx(2.5)


def test_weight_zero_is_measured_without_a_graph() -> None:
    terms = Terms({"l2": L2(weight=1.0), "seen": L2(weight=0.0), "norm": LatentNorm(weight=0)})
    x = torch.zeros(2, 3, 4, 4)
    wp = torch.ones(2, 5, 8, requires_grad=True)
    values = terms.image(x + torch.ones(1, requires_grad=True), x)
    values |= terms.latent(wp, torch.zeros(8))
    assert values["l2"].requires_grad
    assert not values["seen"].requires_grad and not values["norm"].requires_grad
    torch.testing.assert_close(values["norm"], torch.full((2,), 40.0**0.5))
    total = terms.total(values)
    total.backward()
    assert total.item() == 1.0 and wp.grad is None


def test_latent_terms_get_stage_and_critic() -> None:
    terms = Terms({"delta": Delta(weight=1.0, p=2), "adv": LatentAdversarial(weight=0.1)})
    wp = torch.randn(3, 6, 4)
    values = terms.latent(wp, torch.zeros(4), stage=2, critic=lambda w: w[:, :1])
    assert set(values) == {"delta", "adv"} and terms.image(wp, wp) == {}
    torch.testing.assert_close(values["adv"], nn.functional.softplus(-wp[:, :3, 0]).mean(1))


def test_networks_of_terms_stay_frozen_in_eval_mode() -> None:
    terms = Terms({"p": Perceptual(weight=1.0, backbone=Stages())}).train()
    assert not any(module.training for module in terms["p"].modules())
    before = terms["p"].backbone.norm.running_mean.clone()
    x_hat = torch.randn(2, 3, 8, 8, requires_grad=True)
    terms.total(terms.image(x_hat, torch.randn(2, 3, 8, 8))).backward()
    assert x_hat.grad is not None and x_hat.grad.isfinite().all() and x_hat.grad.any()
    assert all(p.grad is None for p in terms.parameters())
    assert torch.equal(terms["p"].backbone.norm.running_mean, before)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_refuses_a_weight_below_zero(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"for L2; expected a number of at least 0.*null"):
        L2(weight=weight)


def test_refuses_to_train_on_nothing() -> None:
    with pytest.raises(ConfigError, match=r"no loss to train on: l2, none.*give a term"):
        Terms({"l2": L2(weight=0.0), "lpips": None}).check_any_term()
