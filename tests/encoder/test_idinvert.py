"""IDInvert's encoders: the released one exactly, the later one against its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.errors import ConfigError
from ganinv.encoder.idinvert import DomainGuidedEncoder, DomainGuidedEncoder5x5
from tests.golden_tools import case

KINDS = [DomainGuidedEncoder, DomainGuidedEncoder5x5]


def small(kind: type[nn.Module], **changes: Any) -> nn.Module:
    settings = dict(num_ws=6, w_dim=8, input_size=16, input_nc=3, channel_base=4, channel_max=8)
    return kind(**settings | changes)


@pytest.mark.parametrize("size", [64, 256])
@torch.inference_mode()
def test_golden(size: int) -> None:
    golden = case(f"idinvert_encoder_{size}")
    encoder = small(
        DomainGuidedEncoder,
        num_ws=2 * int(math.log2(size)) - 2,
        w_dim=golden.ctor["w_space_dim"],
        input_size=size,
        channel_base=golden.ctor["encoder_channels_base"],
        channel_max=golden.ctor["encoder_channels_max"],
    )
    assert set(encoder.state_dict()) == set(golden.spec["state"])
    encoder.load_state_dict(golden.state())
    wp = encoder.eval()(golden.input(f"image{size}"))
    assert wp.shape == (2, encoder.num_ws, 64)
    assert golden.error("latents", wp.flatten(1)) < 1e-5


def test_sizes_as_published() -> None:
    """165,326,848 numbers of which 16,128 are the scales that stay 1; 75,412,032 in the later."""
    full = dict(num_ws=14, w_dim=512, input_size=256, channel_base=64)
    with torch.device("meta"):
        first = small(DomainGuidedEncoder, **full, channel_max=1024)
        later = small(DomainGuidedEncoder5x5, **full, channel_max=512)
    assert sum(p.numel() for p in first.parameters()) == 165_310_720
    assert len(first.state_dict()) == 120
    scales = [v for k, v in first.named_buffers() if k.endswith("bn.weight")]
    assert sum(v.numel() for v in scales) == 165_326_848 - 165_310_720
    assert sum(p.numel() for p in later.parameters()) == 75_412_032


def later_by_definition(state: dict[str, Tensor], x: Tensor, num_ws: int) -> Tensor:
    """Batch statistics; conv + bias, leaky ReLU, normalisation."""

    def norm(x: Tensor, name: str) -> Tensor:
        over = [i for i in range(x.ndim) if i != 1]
        x = (x - x.mean(over, keepdim=True)) / (x.var(over, False, keepdim=True) + 1e-5).sqrt()
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * state[f"{name}.weight"].reshape(shape) + state[f"{name}.bias"].reshape(shape)

    def conv(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
        return norm(F.leaky_relu(F.conv2d(x, weight, bias, padding="same"), 0.2), f"{name}.norm")

    x, i = conv(x, "stem"), 0
    while x.shape[-1] > 4:
        name = f"blocks.{i}"
        x, i = F.avg_pool2d(x, 2), i + 1
        y = conv(conv(x, f"{name}.conv0"), f"{name}.conv1")
        if f"{name}.shortcut.conv.weight" in state:
            x = norm(F.conv2d(x, state[f"{name}.shortcut.conv.weight"]), f"{name}.shortcut.norm")
        x = x + y
    code = x.flatten(1) @ state["dense.weight"].t() + state["dense.bias"]
    return norm(code, "norm").reshape(len(x), num_ws, -1)


def test_the_later_encoder_is_its_definition() -> None:
    encoder = small(DomainGuidedEncoder5x5, input_size=32).double()
    assert tuple(encoder.stem.conv.weight.shape) == (4, 3, 5, 5)
    for value in encoder.parameters():
        value.data.normal_()
    x = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(encoder(x), later_by_definition(encoder.state_dict(), x, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_is_normalised_over_the_batch_and_every_parameter_moves_it(
    kind: type[nn.Module],
) -> None:
    encoder = small(kind)
    wp = encoder(torch.randn(16, 3, 16, 16))
    assert wp.shape == (16, 6, 8)
    torch.testing.assert_close(wp.mean(0), torch.zeros(6, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(wp.std(0, unbiased=False), torch.ones(6, 8), atol=0.2, rtol=0)
    (wp * torch.randn_like(wp)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind: type[nn.Module]) -> None:
    for size in ([192, 256], 48, 4):
        with pytest.raises(ConfigError, match=r"height x width.*power of two.*dataset.image_size"):
            small(kind, input_size=size)
    with pytest.raises(ValueError, match=r"image of \(32, 32\) px; expected 16 x 16"):
        small(kind)(torch.zeros(2, 3, 32, 32))
