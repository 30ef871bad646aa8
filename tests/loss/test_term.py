"""How terms are measured, weighed and summed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError
from ganinv.loss.latent import Delta, LatentAdversarial, LatentNorm
from ganinv.loss.perceptual import Perceptual
from ganinv.loss.pixel import L2
from ganinv.loss.region import Region
from ganinv.loss.term import Terms, total


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
    losses = terms(x_hat=x_hat, x=x)
    assert {name: weight for name, (weight, _) in losses.items()} == {"l2": 2.0, "again": 0.5}
    assert all(value.shape == (2,) for _, value in losses.values())
    assert total(losses).item() == pytest.approx(2.5)


def test_weight_zero_is_measured_without_a_graph() -> None:
    terms = Terms({"l2": L2(weight=1.0), "seen": L2(weight=0.0), "norm": LatentNorm(weight=0)})
    x = torch.zeros(2, 3, 4, 4)
    wp = torch.ones(2, 5, 8, requires_grad=True)
    x_hat = x + torch.ones(1, requires_grad=True)
    losses = terms(x_hat=x_hat, x=x, wp=wp, w_avg=torch.zeros(8))
    values = {name: value for name, (_, value) in losses.items()}
    assert values["l2"].requires_grad
    assert not values["seen"].requires_grad and not values["norm"].requires_grad
    torch.testing.assert_close(values["norm"], torch.full((2,), 40.0**0.5))
    descended = total(losses)
    descended.backward()
    assert descended.item() == 1.0 and wp.grad is None


def test_a_term_gets_what_it_reads_and_no_more() -> None:
    terms = Terms({"delta": Delta(weight=1.0, p=2), "adv": LatentAdversarial(weight=0.1)})
    wp = torch.randn(3, 6, 4)
    losses = terms(wp=wp, stage=2, critic=lambda w: w[:, :1], f=None)
    assert set(losses) == {"delta", "adv"}
    assert list(terms.readable(("x_hat", "x", "wp", "stage"))) == ["delta"]
    torch.testing.assert_close(losses["adv"][1], nn.functional.softplus(-wp[:, :3, 0]).mean(1))


def test_terms_that_read_what_a_method_does_not_have_are_refused() -> None:
    given = ("x_hat", "x", "wp", "w_avg")
    terms = Terms({"l2": L2(weight=1.0), "adv": LatentAdversarial(weight=0.1)})
    with pytest.raises(ConfigError, match=r"loss.adv, which reads stage and critic, with PSp; exp.*"
                       r"terms that read x_hat, x, wp, w_avg.*set loss.adv=null"):  # fmt: skip
        terms.check_trainable(given, "PSp")
    Terms({"l2": L2(weight=1.0), "norm": LatentNorm(weight=0.0)}).check_trainable(given, "PSp")
    with pytest.raises(ConfigError, match=r"region around LatentNorm, which reads wp, w_avg; exp"):
        Region(weight=1.0, region=[0, 2, 0, 2], term=LatentNorm(weight=1.0))


def test_networks_of_terms_stay_frozen_in_eval_mode() -> None:
    terms = Terms({"p": Perceptual(weight=1.0, backbone=Stages())}).train()
    assert not any(module.training for module in terms["p"].modules())
    before = terms["p"].backbone.norm.running_mean.clone()
    x_hat = torch.randn(2, 3, 8, 8, requires_grad=True)
    total(terms(x_hat=x_hat, x=torch.randn(2, 3, 8, 8))).backward()
    assert x_hat.grad is not None and x_hat.grad.isfinite().all() and x_hat.grad.any()
    assert all(p.grad is None for p in terms.parameters())
    assert torch.equal(terms["p"].backbone.norm.running_mean, before)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_refuses_a_weight_below_zero(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"for L2; expected a number of at least 0.*null"):
        L2(weight=weight)


def test_refuses_to_train_on_nothing() -> None:
    with pytest.raises(ConfigError, match=r"no loss to train on: l2, none.*give a term"):
        Terms({"l2": L2(weight=0.0), "lpips": None}).check_trainable(("x_hat", "x"), "PSp")
