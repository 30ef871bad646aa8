"""ReStyle's encoders: exact, staged like e4e, started from an RGB trunk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet34

from ganinv.backbone.irse import load_trunk
from ganinv.backbone.resnet34 import load_resnet34
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.encoder.restyle import (
    ReStyleEncoder,
    ReStyleEncoder4Editing,
    ReStyleResNetEncoder,
    ReStyleResNetEncoder4Editing,
)
from tests.encoder.test_shapes import small, small_face_file
from tests.golden_tools import case

KINDS = [ReStyleEncoder, ReStyleEncoder4Editing]


@torch.inference_mode()
def test_golden() -> None:
    golden = case("restyle_encoder_256")
    settings = dict(num_ws=14, w_dim=512, input_size=256, input_nc=6, trunk="ir_se50")
    networks = []
    for kind in KINDS:
        with torch.device("meta"):
            encoder = kind(**settings)
        assert set(encoder.state_dict()) == set(golden.spec["state"])
        assert sum(p.numel() for p in encoder.parameters()) == 166_778_240
        encoder.load_state_dict(golden.state() if not networks else networks[0], assign=True)
        networks.append(encoder.state_dict())
        codes = encoder.eval()(golden.input("image256x6"))
        if kind is ReStyleEncoder:
            assert golden.error("codes", codes) < 1e-5
            absolute = codes
        else:  # e4e's heads, of the same weights, give offsets from the first one
            rows = absolute + absolute[:, :1]
            torch.testing.assert_close(codes[:, 1:], rows[:, 1:], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(codes[:, 0], absolute[:, 0], rtol=1e-4, atol=1e-6)


def test_size_at_1024() -> None:
    with torch.device("meta"):
        encoder = small(
            ReStyleEncoder, num_ws=18, w_dim=512, input_size=256, input_nc=6, trunk="ir_se50"
        )
    assert sum(p.numel() for p in encoder.parameters()) == 205_585_792
    assert len(encoder.state_dict()) == 565


def test_stages() -> None:
    encoder = small(ReStyleEncoder4Editing, input_nc=6).eval()
    image = torch.randn(2, 6, 64, 64)
    full, w = encoder(image), encoder(image, stage=0)
    assert torch.equal(w, w[:, :1].expand_as(w))
    part = encoder(image, stage=3)
    torch.testing.assert_close(part[:, :4], full[:, :4])
    torch.testing.assert_close(part[:, 4:], w[:, 4:])
    assert encoder.last_stage == 9
    encoder(image, stage=2).sum().backward()
    opened = [head.linear.weight.grad is not None for head in encoder.styles]
    assert opened == [True] * 3 + [False] * 7


@pytest.mark.parametrize("kind", KINDS)
def test_the_rgb_half_starts_from_the_trunk_s_file(tmp_path: Path, kind: type[nn.Module]) -> None:
    file = tmp_path / "trunk.pth"
    state = small_face_file(file)
    torch.manual_seed(3)
    fresh = small(kind, input_nc=6)
    torch.manual_seed(3)
    encoder = small(kind, input_nc=6)
    source = load_trunk(encoder, str(file))
    own = encoder.state_dict()
    assert torch.equal(own["input_layer.0.weight"][:, :3], state["input_layer.0.weight"])
    assert torch.equal(own["input_layer.0.weight"][:, 3:], fresh.input_layer[0].weight[:, 3:])
    assert own["input_layer.0.weight"][:, 3:].std() < 0.2
    others = [key for key in state if key != "input_layer.0.weight"]
    assert all(torch.equal(own[key], state[key]) for key in others)
    assert source.endswith("random filters of 3 input channels")


@pytest.mark.parametrize("kind", KINDS)
def test_one_training_step_moves_every_weight(kind: type[nn.Module]) -> None:
    encoder = small(kind, input_nc=6)
    encoder(torch.randn(4, 6, 64, 64)).square().sum().backward()
    still = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


# ------------------------------------------------------------------ ResNet-34


@pytest.mark.parametrize("kind", [ReStyleResNetEncoder, ReStyleResNetEncoder4Editing])
def test_resnet_has_the_released_keys_and_numbers(kind):
    with torch.device("meta"):
        encoder = kind(num_ws=18, w_dim=512, input_size=256, input_nc=6)
    state = encoder.state_dict()
    assert len(state) == 397
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2) == 195.93
    assert {k.split(".")[0] for k in state} == {"conv1", "bn1", "relu", "body", "styles"}
    assert state["relu.weight"].shape == (64,) and "body.15.conv2.weight" in state
    assert state["body.3.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert state["styles.17.convs.6.weight"].shape == (512, 512, 3, 3)


def test_resnet_is_torchvision_s_without_pooling(tmp_path):
    torch.manual_seed(0)
    whole = resnet34(weights=None).eval()
    for name, value in whole.named_buffers():
        if "running" in name:
            value.copy_(torch.rand_like(value) + 0.5)
    torch.save(whole.state_dict(), tmp_path / "resnet34-x.pth")
    encoder = ReStyleResNetEncoder(
        num_ws=2,
        w_dim=16,
        input_size=[192, 256],
        input_nc=6,
    ).eval()
    source = load_resnet34(encoder, str(tmp_path / "resnet34-x.pth"))
    with torch.no_grad():
        encoder.conv1.weight[:, 3:] = 0  # y is not looked at, so that torchvision's can be compared
        x = torch.randn(2, 6, 192, 256)
        y = F.leaky_relu(whole.bn1(whole.conv1(x[:, :3])), 0.25)
        for layer in (whole.layer1, whole.layer2, whole.layer3, whole.layer4):
            y = layer(y)
        torch.testing.assert_close(encoder.last(x), y)
        assert encoder(x).shape == (2, 2, 16)
    assert "3 input channels" in source


def test_resnet_refusals(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    options = {"num_ws": 2, "w_dim": 16, "input_nc": 6}
    encoder = ReStyleResNetEncoder(input_size=256, **options)
    with pytest.raises(WeightsError, match="no bn1.weight"):
        load_resnet34(encoder, str(tmp_path / "other.pth"))
    with pytest.raises(ConfigError, match="512x512 px .* ResNet-34; expected 256x256 or 192x256"):
        ReStyleResNetEncoder(input_size=512, **options)
    with pytest.raises(WeightsMissing, match="torchvision's ImageNet ResNet-34"):
        load_resnet34(encoder, "resnet34-none.pth")
