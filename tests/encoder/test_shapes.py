"""The encoders at any num_ws, w_dim and admitted size, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ganinv.backbone.irse import PLANS, load_trunk
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.encoder.e4e import W_ONLY, Encoder4Editing
from ganinv.encoder.psp import GradualStyleEncoder, WEncoder, WPlusEncoder

KINDS = [GradualStyleEncoder, Encoder4Editing, WEncoder, WPlusEncoder]


def small(kind: type[nn.Module], **changes: Any) -> nn.Module:
    settings = dict(num_ws=10, w_dim=128, input_size=64, input_nc=3, trunk="ir_se_small")
    return kind(**settings | changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_ws", "w_dim"), [(10, 128), (2, 32), (7, 64)])
def test_small_trunk(kind: type[nn.Module], num_ws: int, w_dim: int) -> None:
    encoder = small(kind, num_ws=num_ws, w_dim=w_dim)
    assert encoder.input_size == (64, 64)
    assert encoder(torch.randn(3, 3, 64, 64)).shape == (3, num_ws, w_dim)


@pytest.mark.parametrize("size", [(256, 256), (192, 256)])
@pytest.mark.parametrize("kind", KINDS)
def test_ir_se50_admits_both_sizes(kind: type[nn.Module], size: tuple[int, int]) -> None:
    with FakeTensorMode():
        encoder = small(kind, num_ws=16, w_dim=512, input_size=list(size), trunk="ir_se50")
        taps = encoder.taps(torch.zeros(2, 3, *size))
        wp = encoder(torch.zeros(2, 3, *size))
    assert [tuple(t.shape[1:]) for t in taps] == [
        (c, size[0] // s, size[1] // s) for c, s in ((128, 4), (256, 8), (512, 16))
    ]
    assert encoder.input_size == size and wp.shape == (2, 16, 512)


def test_small_taps_have_the_same_contract() -> None:
    encoder = small(GradualStyleEncoder)
    taps = encoder.taps(torch.zeros(1, 3, 64, 64))
    widths = PLANS["ir_se_small"].widths
    assert [tuple(t.shape) for t in taps] == [
        (1, c, 64 // s, 64 // s) for c, s in zip(widths, (4, 8, 16), strict=True)
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_size": 512, "trunk": "ir_se50"}, r"512x512.*256x256 or 192x256"),
        ({"input_size": 64, "trunk": "ir_se50"}, r"64x64.*encoder.trunk=ir_se_small"),
        ({"input_size": [256, 192], "trunk": "ir_se50"}, r"256x192 px .*height x width"),
        ({"input_size": 256}, r"256x256.*expected 64x64.*encoder.trunk=ir_se50"),
        ({"trunk": "resnet"}, r"'resnet'.*ir_se50, ir_se_small"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_refuses_other_sizes(kind: type[nn.Module], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small(kind, **changes)


def test_heads_read_coarse_middle_and_fine_maps() -> None:
    encoder = small(GradualStyleEncoder)
    depths = [sum(isinstance(m, nn.Conv2d) for m in head.convs) for head in encoder.styles]
    assert depths == [2, 2, 2, 3, 3, 3, 3, 4, 4, 4]


def test_stages_open_one_layer_after_the_other() -> None:
    torch.manual_seed(0)
    encoder = small(Encoder4Editing).eval()
    image = torch.randn(2, 3, 64, 64)
    full = encoder(image)
    w = encoder(image, stage=W_ONLY)
    assert torch.equal(w, w[:, :1].expand_as(w))
    for stage in (1, 3, 7):
        wp = encoder(image, stage=stage)
        torch.testing.assert_close(wp[:, : stage + 1], full[:, : stage + 1])
        torch.testing.assert_close(wp[:, stage + 1 :], w[:, stage + 1 :])
        assert not torch.allclose(wp[:, stage], w[:, stage])
    assert encoder.last_stage == 9
    assert torch.equal(encoder(image, stage=99), full)


def test_missing_trunk_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"nowhere.pth.*pixel2style2pixel.*trunk_weights=null"):
        load_trunk(small(GradualStyleEncoder), str(tmp_path / "nowhere.pth"))


def small_face_file(path: Path) -> dict[str, torch.Tensor]:
    trunk = small(WEncoder)
    state = {
        k: torch.randn_like(v) if v.is_floating_point() else v
        for k, v in trunk.state_dict().items()
        if not k.startswith("linear")
    }
    torch.save(state | {"output_layer.0.weight": torch.zeros(1)}, path)
    return state


def test_trunk_weights_are_loaded(tmp_path: Path) -> None:
    file = tmp_path / "trunk.pth"
    state = small_face_file(file)
    encoder = small(GradualStyleEncoder)
    assert load_trunk(encoder, str(file)).startswith("trunk.pth (sha256 ")
    own = encoder.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items())


def test_input_layer_of_a_sketch_encoder_stays_random(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trunk.pth"
    state = small_face_file(file)
    encoder = small(GradualStyleEncoder, input_nc=1)
    source = load_trunk(encoder, str(file))
    assert torch.equal(encoder.body[0].res_layer[1].weight, state["body.0.res_layer.1.weight"])
    assert "random input_layer" in source and "input layer is random" in caplog.text
    assert encoder(torch.randn(2, 1, 64, 64)).shape == (2, 10, 128)


def test_trunk_weights_of_another_architecture(tmp_path: Path) -> None:
    file = tmp_path / "trunk.pth"
    small_face_file(file)
    with torch.device("meta"):
        encoder = small(GradualStyleEncoder, input_size=256, trunk="ir_se50")
    with pytest.raises(WeightsError, match=r"trunk.pth.*instead of.*choose"):
        load_trunk(encoder, str(file))


@pytest.mark.parametrize("kind", KINDS)
def test_one_training_step_moves_every_weight(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    encoder = small(kind)
    encoder(torch.randn(4, 3, 64, 64)).square().sum().backward()
    still = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@torch.no_grad()
def test_a_head_opens_as_strong_as_in_released_logs() -> None:
    """||w|| and ||delta_1|| untrained: 0.14-0.16 (encoder4editing issue 90)."""
    torch.manual_seed(0)
    encoder = small(Encoder4Editing, num_ws=2, w_dim=512, input_size=256, trunk="ir_se50").eval()
    wp = encoder(torch.randn(1, 3, 256, 256).clamp(-1, 1))
    w, delta = wp[0, 0].norm().item(), (wp[0, 1] - wp[0, 0]).norm().item()
    assert 0.13 < w < 0.17 and 0.13 < delta < 0.17
