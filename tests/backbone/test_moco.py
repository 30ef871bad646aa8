"""MoCo's ResNet-50: its file, its preprocessing, its unit vectors."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50

from ganinv.backbone.moco import moco_resnet50
from ganinv.core.errors import WeightsError, WeightsMissing
from ganinv.loss.similarity import Similarity


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A training checkpoint of the published layout, and torchvision's network with its weights."""
    torch.manual_seed(0)
    network = resnet50(weights=None).eval()
    state = {f"module.encoder_q.{k}": v for k, v in network.state_dict().items()}
    state |= {f"module.encoder_k.{k}": torch.zeros_like(v) for k, v in network.state_dict().items()}
    state |= {f"module.encoder_q.fc.{i}.weight": torch.zeros(2, 2) for i in (0, 2)}
    path = tmp_path_factory.mktemp("weights") / "moco_v2_800ep_pretrain.pth.tar"
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state}, path)
    network.fc = nn.Identity()
    return path, network


def test_nearest_to_224_and_unit_length(
    file: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANINV_WEIGHTS", str(file[0].parent))
    network = moco_resnet50(weights=None)
    x = torch.rand(2, 3, 192, 256) * 2 - 1  # a car: the aspect is not kept
    rows = torch.arange(224) * 192 // 224
    columns = torch.arange(224) * 256 // 224
    with torch.no_grad():
        raw = file[1](x[:, :, rows][:, :, :, columns])
    found = network(x)
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True))
    assert found.shape == (2, 2048)
    torch.testing.assert_close(network(x[:1]), found[:1], atol=1e-5, rtol=1e-4)  # one image too
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_what_import_writes_is_read_too(file: tuple[Path, nn.Module], tmp_path: Path) -> None:
    plain = {k: v for k, v in file[1].state_dict().items()}
    torch.save(plain, tmp_path / "plain.pth")
    x = torch.rand(1, 3, 64, 64)
    a, b = (moco_resnet50(weights=str(p))(x) for p in (file[0], tmp_path / "plain.pth"))
    assert torch.equal(a, b)


def test_refusals(file: tuple[Path, nn.Module], tmp_path: Path) -> None:
    with pytest.raises(
        WeightsMissing, match=r"moco_v2_800ep_pretrain.pth.tar.*loss.similarity=nul"
    ):
        moco_resnet50(weights=str(tmp_path / "moco_v2_800ep_pretrain.pth.tar"))
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no network"):
        moco_resnet50(weights=str(tmp_path / "list.pth"))
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"no bn1.weight"):
        moco_resnet50(weights=str(tmp_path / "other.pth"))


def test_the_similarity_term(file: tuple[Path, nn.Module]) -> None:
    term = Similarity(weight=0.5, backbone=moco_resnet50(weights=str(file[0])))
    x_hat = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    values = term(x_hat, x)
    embedded = [F.normalize(file[1](F.interpolate(i, (224, 224)))) for i in (x_hat, x)]
    torch.testing.assert_close(values, 1 - (embedded[0] * embedded[1]).sum(1))
    values.sum().backward()
    assert x_hat.grad is not None and x_hat.grad.abs().sum() > 0
    assert term(x, x).abs().max() < 1e-5
