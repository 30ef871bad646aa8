"""ReStyle's encoders: exact, staged like e4e, started from an RGB trunk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ganinv.encoder.restyle import ReStyleEncoder, ReStyleEncoder4Editing
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
            encoder = kind(**settings, trunk_weights=None)
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
    encoder = small(kind, input_nc=6, trunk_weights=str(file))
    own = encoder.state_dict()
    assert torch.equal(own["input_layer.0.weight"][:, :3], state["input_layer.0.weight"])
    assert torch.equal(own["input_layer.0.weight"][:, 3:], fresh.input_layer[0].weight[:, 3:])
    assert own["input_layer.0.weight"][:, 3:].std() < 0.2
    others = [key for key in state if key != "input_layer.0.weight"]
    assert all(torch.equal(own[key], state[key]) for key in others)
    assert encoder.trunk_source.endswith("random filters of 3 input channels")


@pytest.mark.parametrize("kind", KINDS)
def test_one_training_step_moves_every_weight(kind: type[nn.Module]) -> None:
    encoder = small(kind, input_nc=6)
    encoder(torch.randn(4, 6, 64, 64)).square().sum().backward()
    still = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
