"""StyleGAN2 against the reference's numbers, its gradient, and its refusals."""

import pytest
import torch

from ganinv.core.errors import WeightsError
from ganinv.core.latent import repeat_w, truncate
from ganinv.core.op import Scaled, upsample2d
from ganinv.generator.importer import rosinality
from ganinv.generator.stylegan2 import NoiseSource, StyleGAN2Generator, SynthesisLayer, ToRGB
from tests.core.test_op import WeightGradients
from tests.golden_tools import case

TINY = {
    "z_dim": 8,
    "c_dim": 0,
    "w_dim": 8,
    "resolution": 16,
    "img_channels": 3,
    "mapping_layers": 2,
    "channel_base": 128,
    "channel_max": 8,
    "conv_clamp": None,
}


def golden(name):
    found = case(name)
    ctor, synthesis = found.ctor, found.ctor["synthesis_kwargs"]
    generator = StyleGAN2Generator(
        z_dim=ctor["z_dim"],
        c_dim=ctor["c_dim"],
        w_dim=ctor["w_dim"],
        resolution=ctor["img_resolution"],
        img_channels=3,
        mapping_layers=ctor["mapping_kwargs"]["num_layers"],
        channel_base=synthesis["channel_base"],
        channel_max=synthesis["channel_max"],
        conv_clamp=synthesis["conv_clamp"],
    )
    state = found.state(generator.state_dict())
    assert set(state) == set(found.spec["state"]) == set(generator.state_dict())
    generator.load_state_dict(state)
    label = torch.eye(5)[[1, 3]] if ctor["c_dim"] else None
    return found, generator, label


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**TINY)
    for name, value in generator.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.3)
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("c", [0, 5])
def test_golden(c, fused):
    found, generator, label = golden(f"stylegan2_ada_generator_64_c{c}")
    generator.set_fused(fused)
    w, wp = generator.mapping(found.input("z"), label), found.input("w_plus")
    assert found.error("w", repeat_w(w, generator.num_ws)) < 1e-5
    half = truncate(w, generator.w_avg, 0.5)
    assert found.error("w_truncated", repeat_w(half, generator.num_ws)) < 1e-5
    assert found.error("image", generator.synthesis(wp)) < 1e-5
    assert found.error("image_nonoise", generator.synthesis(wp, noise="none")) < 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_low_precision_stays_close(dtype, limit):
    found, generator, _ = golden("stylegan2_ada_generator_64_c0")
    with torch.autocast("cpu", dtype):
        image = generator.synthesis(found.input("w_plus"))
    assert found.error("image", image) < limit


def test_gradient_of_the_latent_is_the_finite_difference(tiny):
    tiny = tiny.double()
    wp = torch.randn(1, tiny.num_ws, 8, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(wp)
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def score(code):
        return (tiny.synthesis(code) * pixels).sum()

    score(wp).backward()
    step = 1e-5
    with torch.no_grad():
        difference = (score(wp + step * direction) - score(wp - step * direction)) / (2 * step)
    torch.testing.assert_close((wp.grad * direction).sum(), difference, rtol=1e-6, atol=1e-8)


def test_a_frozen_generator_computes_no_weight_gradient(tiny):
    wp = torch.randn(2, tiny.num_ws, 8, requires_grad=True)
    image = tiny.synthesis(wp)
    with WeightGradients() as counted:
        image.sum().backward()
    assert wp.grad.abs().sum() > 0
    assert counted.count == 0


def test_noise_modes(tiny):
    wp = torch.randn(3, tiny.num_ws, 8)
    const = tiny.synthesis(wp)
    assert torch.equal(const, tiny.synthesis(wp, noise="const"))
    assert not torch.allclose(const, tiny.synthesis(wp, noise="none"))
    seeded = tiny.synthesis(wp, noise="random", seeds=[1, 2, 3])
    assert torch.equal(seeded, tiny.synthesis(wp, noise="random", seeds=[1, 2, 3]))
    alone = tiny.synthesis(wp[1:2], noise="random", seeds=[2])
    torch.testing.assert_close(alone[0], seeded[1])  # an image's noise ignores its neighbours
    with pytest.raises(ValueError, match="expected 'const', 'none' or 'random'"):
        tiny.synthesis(wp, noise="some")


def test_a_feature_taken_from_a_pass_gives_the_image_back(tiny):
    """f replaces conv0's output of its block; what is dropped is the coarser blocks' RGB."""
    wp = torch.randn(2, tiny.num_ws, 8)
    taken = {}
    hooks = [
        tiny.synthesis.b8.conv0.register_forward_hook(lambda m, i, o: taken.update(f=o.whole())),
        tiny.synthesis.b4.torgb.register_forward_hook(lambda m, i, o: torch.zeros_like(o)),
    ]
    without_coarse_rgb = tiny.synthesis(wp)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(tiny.synthesis(wp, f=taken["f"]), without_coarse_rgb)
    other = torch.cat([torch.randn(2, 2, 8), wp[:, 2:]], dim=1)
    assert torch.equal(tiny.synthesis(other, f=taken["f"]), tiny.synthesis(wp, f=taken["f"]))


def test_a_feature_and_the_dropped_rgb_are_the_whole_image(tiny):
    """The image is a sum over blocks: what f leaves out is the upsampled RGB of the coarse ones."""
    wp, taken = torch.randn(2, tiny.num_ws, 8), {}
    blocks = tiny.synthesis
    hooks = [
        blocks.b8.conv0.register_forward_hook(lambda m, i, o: taken.update(f=o.whole())),
        blocks.b4.torgb.register_forward_hook(lambda m, i, o: taken.update(rgb=o)),
    ]
    image = tiny.synthesis(wp)
    for hook in hooks:
        hook.remove()
    coarse = taken["rgb"]
    for block in (blocks.b8, blocks.b16):
        coarse = upsample2d(coarse, block.resample_filter)
    torch.testing.assert_close(
        tiny.synthesis(wp, f=taken["f"]) + coarse, image, rtol=1e-5, atol=1e-5
    )


def test_shifting_f_by_whole_cells_shifts_the_image():
    """Exactly so for a spot whose surroundings stay clear of the zero-padded borders."""
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**{**TINY, "resolution": 64, "channel_base": 512}).double()
    wp = torch.randn(1, generator.num_ws, 8, dtype=torch.float64)
    f = torch.zeros(1, 8, 16, 16, dtype=torch.float64)  # cells of 4 x 4 px
    f[..., 7, 7] = torch.randn(1, 8, dtype=torch.float64)
    image = generator.synthesis(wp, f=f, noise="none")
    moved = generator.synthesis(wp, f=f.roll(1, -1), noise="none")
    clear = (..., slice(16, 48), slice(16, 44))
    torch.testing.assert_close(moved.roll(-4, -1)[clear], image[clear])
    assert (moved - image)[clear].abs().max() > image.std()


def test_a_mapping_network_may_be_wider_than_w():
    """As NVIDIA's layer_features: every layer but the last."""
    shape = TINY | {"c_dim": 3, "mapping_layers": 3, "mapping_width": 20}
    generator = StyleGAN2Generator(**shape)
    sizes = [tuple(getattr(generator.mapping, f"fc{i}").weight.shape) for i in range(3)]
    assert sizes == [(20, 16), (20, 20), (8, 20)]  # z and the label's code, then 20, then w
    assert generator.mapping(torch.randn(2, 8), torch.eye(3)[:2]).shape == (2, 8)
    assert generator.architecture["mapping_width"] == 20
    one = StyleGAN2Generator(**TINY | {"mapping_layers": 1, "mapping_width": 20})
    assert one.mapping.fc0.weight.shape == (8, 8)
    with pytest.raises(WeightsError, match="mapping_width=20; expected 8, the width of w"):
        rosinality.export_state(generator.requires_grad_(False))


def test_refusals(tiny):
    with pytest.raises(ValueError, match=r"wp of shape \(1, 5, 8\); expected \[B,6,8\]"):
        tiny.synthesis(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match=r"f of shape .* expected \[B,\*\]"):
        tiny.synthesis(torch.zeros(1, 6, 8), f=torch.zeros(1, 8, 7, 7))
    conditional = StyleGAN2Generator(**{**TINY, "c_dim": 3})
    with pytest.raises(ValueError, match="was given no label"):
        conditional.mapping(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="expected a power of two"):
        StyleGAN2Generator(**{**TINY, "resolution": 48})


def test_the_clamp_is_nvidia_s_on_what_leaves_the_layer():
    """gain = sqrt 2 and clamp = conv_clamp in their SynthesisLayer; ToRGB has the same clamp."""
    layer = SynthesisLayer(2, 2, w_dim=4, resolution=8, up=1, clamp=256.0)
    layer.bias.data = torch.tensor([1000.0, -1000.0])  # far beyond what the convolution adds
    source = NoiseSource("none", None)
    out = layer(Scaled(torch.randn(1, 2, 8, 8)), torch.randn(1, 4), source).whole()
    assert torch.equal(out[:, 0], torch.full((1, 8, 8), 256.0))
    assert torch.equal(out[:, 1], torch.full((1, 8, 8), -256.0))
    rgb = ToRGB(2, 3, w_dim=4, clamp=256.0)
    rgb.bias.data.fill_(1000.0)
    image = rgb(Scaled(torch.randn(1, 2, 8, 8)), torch.randn(1, 4))
    assert torch.equal(image, torch.full((1, 3, 8, 8), 256.0))
