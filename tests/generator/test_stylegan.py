"""StyleGAN (v1) against the reference's numbers, its gradient, F injection, and its refusals."""

import pytest
import torch

from ganinv.core.latent import repeat_w
from ganinv.generator.importer import genforce
from ganinv.generator.stylegan import StyleGANGenerator
from tests.golden_tools import case

TINY = {
    "z_dim": 8,
    "w_dim": 8,
    "resolution": 16,
    "img_channels": 3,
    "mapping_layers": 2,
    "layerwise": False,
    "channel_base": 128,
    "channel_max": 8,
    "final_tanh": False,
}


def tiny(**changes):
    torch.manual_seed(0)
    generator = StyleGANGenerator(**{**TINY, **changes})
    for name, value in generator.named_parameters():
        if name.endswith("noise_strength"):
            value.data.normal_(0, 0.3)
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [64, 256])
def test_golden(size):
    """256 px has fused up-convolutions, 64 px has none."""
    found = case(f"stylegan1_genforce_generator_{size}")
    generator = genforce.import_state(found.state(), final_tanh=False)
    w, wp = generator.mapping(found.input("z")), found.input("w_plus")
    assert w.shape == wp.shape
    assert found.error("w", w.flatten(1)) < 1e-5
    assert found.error("image", generator.synthesis(wp)) < 1e-5
    tanh = genforce.import_state(found.state(), final_tanh=True).synthesis(wp)
    torch.testing.assert_close(tanh, generator.synthesis(wp).tanh())


def test_size_of_the_published_generators():
    """29,500,758 numbers with IDInvert's layer-wise mapping, 26,086,229 with the usual one; both
    counted by the references without their buffers (noise, blur, w_avg), with all to-RGB."""
    usual = {**TINY, "z_dim": 512, "w_dim": 512, "mapping_layers": 8, "resolution": 256}
    usual |= {"channel_base": 16384, "channel_max": 512}
    with torch.device("meta"):
        for layerwise, expected in ((True, 29_500_758 - 1), (False, 26_086_229)):
            generator = StyleGANGenerator(**usual | {"layerwise": layerwise})
            state = generator.state_dict()
            buffers = [k for k in state if k.endswith(("noise_const", "w_avg"))]
            total = sum(v.numel() for v in state.values())
            assert total - sum(state[k].numel() for k in buffers) == expected


def test_gradient_of_the_latent_is_the_finite_difference():
    generator = tiny(final_tanh=True).double()
    wp = torch.randn(1, generator.num_ws, 8, dtype=torch.float64, requires_grad=True)
    f = torch.randn(1, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def score(code, feature):
        return (generator.synthesis(code, feature) * pixels).sum()

    for feature in (None, f):
        wp.grad = None
        score(wp, feature).backward()
        direction, step = torch.randn_like(wp), 1e-5
        with torch.no_grad():
            up, down = score(wp + step * direction, feature), score(wp - step * direction, feature)
        slope = (up - down) / (2 * step)
        torch.testing.assert_close((wp.grad * direction).sum(), slope, rtol=1e-6, atol=1e-8)
    assert f.grad.abs().sum() > 0


@pytest.mark.parametrize("layerwise", [False, True])
def test_mapping_gives_one_w_or_one_for_each_layer(layerwise):
    generator = tiny(layerwise=layerwise)
    w = generator.mapping(torch.randn(3, 8))
    assert w.shape == ((3, 6, 8) if layerwise else (3, 8))
    assert generator.synthesis(repeat_w(w, generator.num_ws)).shape == (3, 3, 16, 16)
    assert generator.w_avg.shape == (8,)


def test_noise_modes():
    generator = tiny()
    wp = torch.randn(3, generator.num_ws, 8)
    const = generator.synthesis(wp)
    assert torch.equal(const, generator.synthesis(wp, noise="const"))
    assert not torch.allclose(const, generator.synthesis(wp, noise="none"))
    seeded = generator.synthesis(wp, noise="random", seeds=[1, 2, 3])
    assert torch.equal(seeded, generator.synthesis(wp, noise="random", seeds=[1, 2, 3]))
    alone = generator.synthesis(wp[1:2], noise="random", seeds=[2])
    torch.testing.assert_close(alone[0], seeded[1])
    with pytest.raises(ValueError, match="expected 'const', 'none' or 'random'"):
        generator.synthesis(wp, noise="some")


@pytest.mark.parametrize(("size", "first"), [(8, 2), (16, 4)])
def test_a_feature_taken_from_a_pass_gives_the_image_back(size, first):
    """f is what the instance norm of b{size}.layer0 reads; layers of wp before `first` are not."""
    generator, taken = tiny(), {}
    wp = torch.randn(2, generator.num_ws, 8)
    layer = getattr(generator.synthesis, f"b{size}").layer0
    modulate = layer.modulate
    layer.modulate = lambda x, w: modulate(taken.setdefault("f", x), w)
    image = generator.synthesis(wp)
    layer.modulate = modulate
    assert torch.equal(generator.synthesis(wp, f=taken["f"]), image)
    other = torch.cat([torch.randn(2, first, 8), wp[:, first:]], dim=1)
    assert torch.equal(generator.synthesis(other, f=taken["f"]), image)
    scaled = generator.synthesis(wp, f=taken["f"] * 3 + 1)  # undone by the instance norm
    torch.testing.assert_close(scaled, image, rtol=1e-3, atol=1e-3)


def test_shifting_f_by_whole_cells_shifts_the_image():
    """Exactly so for a spot whose surroundings stay clear of the zero-padded borders."""
    generator = tiny(resolution=64, channel_base=512).double()
    wp = torch.randn(1, generator.num_ws, 8, dtype=torch.float64)
    f = torch.zeros(1, 8, 16, 16, dtype=torch.float64)  # cells of 4 x 4 px
    f[..., 7, 7] = torch.randn(1, 8, dtype=torch.float64)
    image = generator.synthesis(wp, f=f, noise="none")
    moved = generator.synthesis(wp, f=f.roll(1, -1), noise="none")
    clear = (..., slice(16, 48), slice(16, 44))
    torch.testing.assert_close(moved.roll(-4, -1)[clear], image[clear])
    assert (moved - image)[clear].abs().max() > image.std()


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_low_precision_stays_close(dtype, limit):
    found = case("stylegan1_genforce_generator_64")
    generator = genforce.import_state(found.state(), final_tanh=False)
    with torch.autocast("cpu", dtype):
        image = generator.synthesis(found.input("w_plus"))
    assert image.dtype == torch.float32
    assert found.error("image", image) < limit


def test_refusals():
    generator = tiny()
    with pytest.raises(ValueError, match=r"wp of shape \(1, 5, 8\); expected \[B,6,8\]"):
        generator.synthesis(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match=r"f of shape .* expected \[B,\*\]"):
        generator.synthesis(torch.zeros(1, 6, 8), f=torch.zeros(1, 8, 4, 4))
    with pytest.raises(ValueError, match="a label was given; expected none"):
        generator.mapping(torch.zeros(1, 8), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="expected a power of two"):
        tiny(resolution=48)
