"""Pixel, perceptual, LPIPS and identity terms against numbers worked out otherwise."""

from __future__ import annotations

from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from torch import Tensor, nn

from ganinv.backbone.efficientnet_lite0 import efficientnet_lite0
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.loss.identity import Identity
from ganinv.loss.lpips import LPIPS
from ganinv.loss.perceptual import Perceptual
from ganinv.loss.pixel import L2
from ganinv.loss.region import Region


def images(size: int = 64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.rand(2, 3, size, size) * 2 - 1, torch.rand(2, 3, size, size) * 2 - 1


def test_l2() -> None:
    x = torch.zeros(2, 3, 2, 2)
    x_hat = x.clone()
    x_hat[1, 0, 0, 0] = 6.0
    assert L2(weight=1.0)(x_hat, x).tolist() == [0.0, 3.0]


class Given(nn.Module):
    def stages(self, image: Tensor) -> list[Tensor]:
        return [image, image[:, :2, ::2, ::2] * 7]


def test_perceptual_by_hand() -> None:
    """Orthogonal unit vectors are 2 apart, opposite ones 4, parallel ones 0, at any length."""
    term = Perceptual(weight=1.0, backbone=Given())
    x = torch.zeros(1, 3, 2, 2)
    x[:, 0] = 5.0
    x_hat = torch.zeros(1, 3, 2, 2)
    x_hat[0, :, 0, 0] = torch.tensor([0.0, 1.0, 0.0])  # orthogonal, in both stages
    x_hat[0, :, 0, 1] = torch.tensor([-9.0, 0.0, 0.0])  # opposite
    x_hat[0, :, 1, 0] = torch.tensor([0.1, 0.0, 0.0])  # parallel
    x_hat[0, :, 1, 1] = torch.tensor([0.0, 0.0, 0.0])  # nothing: distance 1
    expected = (2 + 4 + 0 + 1) / 4 + 2
    assert term(x_hat, x).item() == pytest.approx(expected, abs=1e-5)
    x_hat.requires_grad_()
    term(x_hat, x).sum().backward()
    assert x_hat.grad is not None and x_hat.grad.isfinite().all()


def test_perceptual_over_efficientnet_orders_distortions() -> None:
    term = Perceptual(weight=1.0, backbone=efficientnet_lite0(weights=None))
    grid = torch.linspace(-3, 3, 64)
    x = torch.sin(grid)[None, None, :, None] * torch.cos(grid * 2)[None, None, None, :]
    x = x.expand(1, 3, -1, -1).contiguous()
    torch.manual_seed(0)
    brighter, noisy, other = x + 0.05, x + 0.2 * torch.randn_like(x), images()[0][:1]
    near, middle, far = (term(y, x).item() for y in (brighter, noisy, other))
    assert term(x, x).item() == 0 < near < middle < far


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in with random weights, under the published name, in a cache of torch.hub."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = folder / "squeezenet1_1-b8a52dc0.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    return file


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_equals_the_package(squeezenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(squeezenet.parents[2]))
    package = lpips.LPIPS(net="squeeze", verbose=False)
    random_before = torch.random.get_rng_state()
    term = LPIPS(weight=1.0, net="squeeze", weights=str(squeezenet))
    assert torch.equal(random_before, torch.random.get_rng_state())
    x_hat, x = images()
    torch.testing.assert_close(term(x_hat, x), package(x_hat, x).flatten())
    assert term(x_hat, x).shape == (2,) and not any(p.requires_grad for p in term.parameters())


def test_lpips_reads_torchvision_s_alexnet(tmp_path: Path) -> None:
    trunk = torchvision.models.alexnet(weights=None).features.state_dict()
    torch.save({f"features.{k}": v for k, v in trunk.items()}, tmp_path / "alexnet.pth")
    term = LPIPS(weight=1.0, net="alex", weights=str(tmp_path / "alexnet.pth"))
    own = term.network.net.state_dict()
    assert len(own) == len(trunk)
    assert torch.equal(own["slice5.10.weight"], trunk["10.weight"])
    x_hat, x = images()
    x_hat.requires_grad_()
    term(x_hat, x).sum().backward()
    assert x_hat.grad is not None and x_hat.grad.any()


def test_lpips_of_dead_features_has_a_finite_gradient(tmp_path: Path) -> None:
    trunk = torchvision.models.squeezenet1_1(weights=None).state_dict()
    dead = {k: v - 99 if k.startswith("features.10.expand") else v for k, v in trunk.items()}
    torch.save(dead, tmp_path / "net.pth")
    x_hat, x = images()
    x_hat.requires_grad_()
    LPIPS(weight=1.0, net="squeeze", weights=str(tmp_path / "net.pth"))(x_hat, x).sum().backward()
    assert x_hat.grad is not None and x_hat.grad.isfinite().all()


def test_lpips_is_never_random_in_silence(
    squeezenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        WeightsMissing, match=r"alexnet-owt-7be5be79.pth.*torchvision.*efficientnet_lite0"
    ):
        LPIPS(weight=1.0, net="alex", weights=None)
    with pytest.raises(WeightsError, match="no slice2.3"):
        LPIPS(weight=1.0, net="alex", weights=str(squeezenet))
    with pytest.raises(ConfigError, match="net='lite'; expected alex, vgg or squeeze"):
        LPIPS(weight=1.0, net="lite", weights=None)


class Embedder(nn.Module):
    """Embeds a face by its mean colour, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bool] = []

    def forward(self, face: Tensor) -> Tensor:
        assert face.shape[1:] == (3, 112, 112)
        self.asked.append(torch.is_grad_enabled())
        return nn.functional.normalize(face.mean((2, 3)))


def test_identity_crops_embeds_and_compares() -> None:
    red, green = torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256)
    red[:, 0, 35:223, 32:220] = 1.0
    green[:, 1, 35:223, 32:220] = 1.0
    green[:, 0, :35] = red[:, 1, :, 220:] = 50.0  # outside the crop
    embedder = Embedder()
    term = Identity(weight=0.1, region=[35, 223, 32, 220], backbone=embedder)
    x_hat, x = torch.cat([red, green]), torch.cat([red, red])
    torch.testing.assert_close(term(x_hat, x), torch.tensor([0.0, 1.0]))
    assert embedder.asked == [False, True]  # the target once, without a graph


def test_identity_needs_to_know_where_the_face_is() -> None:
    with pytest.raises(ConfigError, match=r"dataset.regions.face=.*leave the term out"):
        Identity(weight=0.1, region=None, backbone=Embedder())
    outside = Identity(weight=0.1, region=[35, 223, 32, 220], backbone=Embedder())
    with pytest.raises(ConfigError, match=r"of images of 64 x 64 px"):
        outside(*images())


def test_a_region_sees_nothing_but_itself() -> None:
    x_hat, x = images()
    term = Region(weight=0.01, region=[8, 24, 4, 60], term=L2(weight=1.0))
    expected = (x_hat - x)[:, :, 8:24, 4:60].square().mean((1, 2, 3))
    torch.testing.assert_close(term(x_hat, x), expected)
    x_hat.requires_grad_()
    term(x_hat, x).sum().backward()
    assert x_hat.grad is not None
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[8:24, 4:60] = True
    assert (x_hat.grad[..., ~inside] == 0).all() and (x_hat.grad[..., inside] != 0).all()
    with pytest.raises(ConfigError, match="set the inner weight to 1"):
        Region(weight=0.01, region=[0, 1, 0, 1], term=L2(weight=2.0))
    with pytest.raises(ConfigError, match=r"\[0, 65, 0, 64\] of images of 64 x 64"):
        Region(weight=1.0, region=[0, 65, 0, 64], term=L2(weight=1.0))(x_hat, x)
