"""BDInvert's base-code encoder: exact, of the stated size, and equivariant to shifts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ganinv.encoder.base_code import BaseCodeEncoder
from tests.golden_tools import case

PAPER = dict(channels=512, input_nc=3, channel_base=128, channel_max=512)


def small(**changes: Any) -> BaseCodeEncoder:
    settings = dict(side=8, channels=6, input_nc=3, channel_base=2, channel_max=4)
    return BaseCodeEncoder(**settings | changes)


@pytest.mark.parametrize("side", [8, 16])
@torch.inference_mode()
def test_golden(side: int) -> None:
    golden = case(f"bdinvert_base_encoder_{8 * side}_{side}")
    with torch.device("meta"):
        encoder = BaseCodeEncoder(side=side, **PAPER)
    assert set(encoder.state_dict()) == set(golden.spec["state"])
    assert sum(p.numel() for p in encoder.parameters()) == 12_399_872
    encoder.load_state_dict(golden.state(), assign=True)
    f = encoder.eval()(golden.input(f"image{8 * side}"))
    assert golden.error("base_code", f) < 1e-5


@torch.no_grad()
def test_eight_pixels_are_one_cell() -> None:
    encoder = small(side=16).double().eval()
    x = torch.zeros(1, 3, 128, 128, dtype=torch.float64)
    x[..., 60:68, 60:68] = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    f, moved = encoder(x), encoder(x.roll(8, -1))
    inside = (..., slice(5, 11), slice(5, 10))
    torch.testing.assert_close(moved.roll(-1, -1)[inside], f[inside])
    assert (moved - f)[inside].abs().max() > 0.1 * f.std()


def test_any_size_and_a_gradient_for_every_parameter() -> None:
    encoder = small()
    assert encoder.input_size == (64, 64)
    f = encoder(torch.randn(2, 3, 64, 64))
    assert f.shape == (2, 6, 8, 8)
    f.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(32, 32\) px; expected \(64, 64\) px: 8 px for each"):
        small()(torch.zeros(1, 3, 32, 32))
