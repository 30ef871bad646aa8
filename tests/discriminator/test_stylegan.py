"""The StyleGAN (v1) discriminator against its definition written out, and its published size."""

import pytest
import torch
import torch.nn.functional as F

from ganinv.discriminator.stylegan import StyleGANDiscriminator
from ganinv.generator.importer import genforce
from ganinv.loss.adversarial import r1_penalty

TINY = {"resolution": 16, "img_channels": 3, "channel_base": 128, "channel_max": 8}


def tiny(**changes):
    torch.manual_seed(0)
    critic = StyleGANDiscriminator(**TINY | {"mbstd_group_size": 4} | changes)
    for name, value in critic.named_parameters():
        if name.endswith("bias"):
            value.data.normal_()
    return critic.double()


def by_definition(state, x, group=4):
    """genforce's keys; weights scaled by gain / sqrt(fan-in), gain sqrt 2 but for the last one."""
    res, index = x.shape[-1], 0

    def act(y, name):
        bias = state[f"{name}.bias"]
        return F.leaky_relu(y + bias.reshape(1, -1, *[1] * (y.ndim - 2)), 0.2)

    def scaled(name, gain=2**0.5):
        weight = state[f"{name}.weight"]
        return weight * gain / weight[0].numel() ** 0.5

    x = act(F.conv2d(x, scaled("input0")), "input0")
    while res > 4:
        x = act(F.conv2d(x, scaled(f"layer{index}"), padding=1), f"layer{index}")
        taps = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
        kernel = (taps.outer(taps) / 16).expand(x.shape[1], 1, 3, 3)
        x = F.conv2d(x, kernel, padding=1, groups=x.shape[1])
        weight, name = scaled(f"layer{index + 1}"), f"layer{index + 1}"
        if res >= 128:
            big = torch.zeros(*weight.shape[:2], 4, 4, dtype=x.dtype)
            for i in (0, 1):
                for j in (0, 1):
                    big[:, :, i : i + 3, j : j + 3] += weight
            x = F.conv2d(x, big * 0.25, stride=2, padding=1)
        else:
            x = F.avg_pool2d(F.conv2d(x, weight, padding=1), 2)
        x, res, index = act(x, name), res // 2, index + 2
    deviation = torch.zeros(len(x), 1, 4, 4, dtype=x.dtype)
    for start in range(len(x) // group):  # images start, start + B/group, ... are a group
        rows = slice(start, None, len(x) // group)
        spread = (x[rows] - x[rows].mean(0)).square().mean(0)
        deviation[rows] = (spread + 1e-8).sqrt().mean()
    x = torch.cat([x, deviation], dim=1)
    x = act(F.conv2d(x, scaled(f"layer{index}"), padding=1), f"layer{index}").flatten(1)
    x = act(x @ scaled(f"layer{index + 1}").t(), f"layer{index + 1}")
    return x @ scaled(f"layer{index + 2}", gain=1).t() + state[f"layer{index + 2}.bias"]


@pytest.mark.parametrize("resolution", [16, 256])
@torch.no_grad()
def test_score_is_its_definition(resolution):
    """256 px has fused down-convolutions, 16 px has none."""
    critic = tiny(resolution=resolution, channel_base=8 * resolution)
    x = torch.randn(8, 3, resolution, resolution, dtype=torch.float64)
    state = genforce.export_discriminator(critic.state_dict(), resolution)
    torch.testing.assert_close(critic(x), by_definition(state, x))


def test_the_published_table_of_256_px():
    """51 entries and 23,052,353 parameters, the left-over from-RGB included."""
    with torch.device("meta"):
        critic = StyleGANDiscriminator(
            **TINY | {"resolution": 256, "channel_base": 16384, "channel_max": 512},
            mbstd_group_size=4,
        )
    assert sum(value.numel() for value in critic.state_dict().values()) == 23_052_353
    state = genforce.export_discriminator(critic.state_dict(), 256)
    assert len(state) == 51
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["layer12.weight"] == (512, 513, 3, 3)
    assert shapes["layer13.weight"] == (512, 8192)
    assert shapes["layer14.weight"] == (1, 512)
    assert shapes["input0.weight"] == (64, 3, 1, 1) and shapes["input6.weight"] == (512, 3, 1, 1)
    assert shapes["layer1.blur.kernel"] == (64, 1, 3, 3)


def test_r1_is_the_squared_gradient_and_can_be_descended():
    critic = tiny(mbstd_group_size=1)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(critic, x)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    torch.testing.assert_close(penalty, gradient.square().flatten(1).sum(1))
    direction, step = torch.randn_like(x), 1e-6
    with torch.no_grad():
        slope = (critic(x + step * direction) - critic(x - step * direction)) / (2 * step)
    torch.testing.assert_close(
        (gradient * direction).flatten(1).sum(1), slope[:, 0], rtol=1e-5, atol=1e-8
    )
    penalty.sum().backward()
    weight, total = critic.b16.layer0.weight, penalty.sum().detach()
    inner, before = torch.randn_like(weight), weight.detach().clone()
    slopes = []
    for sign in (1, -1):
        weight.data.copy_(before + sign * 1e-5 * inner)
        slopes.append(r1_penalty(critic, x).sum().detach())
    double = (slopes[0] - slopes[1]) / 2e-5
    torch.testing.assert_close((weight.grad * inner).sum(), double, rtol=1e-4, atol=1e-8)
    assert total > 0


def test_every_parameter_is_trained():
    """What progressive growing left over is kept as buffers, so no parameter lacks a gradient."""
    critic = tiny()
    critic(torch.randn(4, 3, 16, 16, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None for p in critic.parameters())
    assert {k for k, _ in critic.named_buffers() if "fromrgb.weight" in k} == {
        "b8.fromrgb.weight",
        "b4.fromrgb.weight",
    }


def test_refusals():
    with pytest.raises(ValueError, match="image of .* px; expected 16 x 16"):
        tiny()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="a label was given; expected none"):
        tiny()(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="batch of 6; expected a multiple of mbstd_group_size=4"):
        tiny()(torch.zeros(6, 3, 16, 16, dtype=torch.float64))
