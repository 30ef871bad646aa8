"""The StyleGAN2 discriminator against the reference's numbers, and its double backward."""

import pytest
import torch

from ganinv.discriminator.stylegan2 import Conv2d, StyleGAN2Discriminator
from ganinv.loss.adversarial import r1_penalty
from tests.golden_tools import case


@pytest.mark.parametrize("c", [0, 5])
def test_golden(c):
    found = case(f"stylegan2_ada_discriminator_64_c{c}")
    ctor = found.ctor
    critic = StyleGAN2Discriminator(
        c_dim=ctor["c_dim"],
        resolution=64,
        img_channels=3,
        channel_base=ctor["channel_base"],
        channel_max=ctor["channel_max"],
        conv_clamp=ctor["conv_clamp"],
        mbstd_group_size=ctor["epilogue_kwargs"]["mbstd_group_size"],
    )
    state = found.state(critic.state_dict())
    assert set(state) == set(found.spec["state"]) == set(critic.state_dict())
    critic.load_state_dict(state)
    label = torch.eye(5)[:4] if c else None
    assert found.error("logits", critic(found.input("image64"), label)) < 1e-5


def tiny(**changes):
    torch.manual_seed(0)
    return StyleGAN2Discriminator(
        **{
            "c_dim": 0,
            "resolution": 16,
            "img_channels": 3,
            "channel_base": 128,
            "channel_max": 8,
            "conv_clamp": None,
            "mbstd_group_size": 1,
            **changes,
        }
    )


def test_r1_is_the_squared_gradient_and_can_be_descended():
    critic, x = tiny(), torch.randn(2, 3, 16, 16, requires_grad=True)
    penalty = r1_penalty(critic, x)
    step, pixel = 1e-2, (0, 1, 5, 6)
    with torch.no_grad():
        up, down = x.clone(), x.clone()
        up[pixel] += step
        down[pixel] -= step
        slope = (critic(up)[0] - critic(down)[0]) / (2 * step)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    torch.testing.assert_close(gradient[pixel], slope[0], rtol=0.05, atol=1e-3)
    torch.testing.assert_close(penalty, gradient.square().flatten(1).sum(1))
    penalty.sum().backward()
    assert critic.b16.conv0.weight.grad.abs().sum() > 0


def test_refusals():
    with pytest.raises(ValueError, match="image of .* px; expected 16 x 16"):
        tiny()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"no label given; expected c \[B,3\]"):
        tiny(c_dim=3)(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="batch of 6; expected a multiple of mbstd_group_size=4"):
        tiny(mbstd_group_size=4)(torch.zeros(6, 3, 16, 16))


def test_the_clamp_is_nvidia_s_also_of_a_layer_with_a_gain():
    """Their Conv2dLayer: clamp(lrelu(x) * sqrt 2 * gain, conv_clamp * gain); gain sqrt 1/2 in the
    second convolution of a residual block."""
    for gain in (1.0, 0.5**0.5):
        layer = Conv2d(2, 1, 3, clamp=256.0, gain=gain)
        layer.bias.data.fill_(1000.0)
        out = layer(torch.randn(1, 2, 8, 8))
        torch.testing.assert_close(out, torch.full((1, 1, 8, 8), 256 * gain))
