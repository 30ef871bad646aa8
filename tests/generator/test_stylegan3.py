"""StyleGAN3 against the reference's numbers and layer tables; symmetries, gradient, refusals."""

import math

import pytest
import torch

from ganinv.core.latent import repeat_w, truncate
from ganinv.generator.importer.bundle import load_bundle, save_bundle
from ganinv.generator.stylegan3 import StyleGAN3Generator, schedule
from tests.core.test_op import WeightGradients
from tests.golden_tools import case

TINY = {
    "z_dim": 8,
    "c_dim": 0,
    "w_dim": 8,
    "resolution": 32,
    "img_channels": 3,
    "mapping_layers": 2,
    "channel_base": 256,
    "channel_max": 8,
    "num_layers": 5,
    "num_critical": 2,
    "margin_size": 10,
    "conv_kernel": 3,
    "use_radial_filters": False,
    "conv_clamp": 256,
}
ROTATION = {"conv_kernel": 1, "use_radial_filters": True}


def tiny(**changes):
    torch.manual_seed(0)
    return StyleGAN3Generator(**{**TINY, **changes}).eval().requires_grad_(False)


def golden(config):
    found = case(f"stylegan3_{config}_generator_64")
    ctor = dict(found.ctor)
    generator = StyleGAN3Generator(
        z_dim=ctor["z_dim"],
        c_dim=ctor["c_dim"],
        w_dim=ctor["w_dim"],
        resolution=ctor["img_resolution"],
        img_channels=ctor["img_channels"],
        mapping_layers=ctor["mapping_kwargs"]["num_layers"],
        conv_clamp=256,
        **{k: ctor[k] for k in ("channel_base", "channel_max", "num_layers", "num_critical")},
        margin_size=ctor["margin_size"],
        **({} if config == "r" else {"conv_kernel": 3, "use_radial_filters": False}),
        **({k: ctor[k] for k in ROTATION} if config == "r" else {}),
    )
    own = generator.state_dict()
    state = found.state(own)
    assert set(state) == set(found.spec["state"]) == set(own)
    for key, value in state.items():  # the filters made here are those of the reference
        if key.endswith("_filter"):
            torch.testing.assert_close(own[key], value, rtol=0, atol=1e-7)
    for name in ("freqs", "phases"):
        state[f"synthesis.input.{name}"] = torch.from_numpy(found.arrays[f"buffer.input_{name}"])
    generator.load_state_dict(state)
    return found, generator.eval().requires_grad_(False)


@pytest.mark.parametrize("config", ["t", "r"])
def test_golden(config):
    found, generator = golden(config)
    w, wp = generator.mapping(found.input("z")), found.input("w_plus")
    assert found.error("w", repeat_w(w, generator.num_ws)) < 1e-5
    image = generator.synthesis(wp)
    assert found.error("image", image) < 1e-5
    alone = generator.synthesis(wp[1:])
    torch.testing.assert_close(alone[0], image[1], rtol=1e-5, atol=1e-6)
    half = truncate(w, generator.w_avg, 0.5)
    torch.testing.assert_close(half, (generator.w_avg + w) / 2)


@pytest.mark.parametrize(
    ("resolution", "channel_base", "channel_max", "names"),
    [
        (256, 16384, 512, "36_512 36_512 36_512 52_512 52_512 84_512 84_512 148_362 148_256 "
         "148_181 276_128 276_91 276_64 256_64 256_3"),
        (1024, 32768, 512, "36_512 36_512 52_512 52_512 84_512 148_512 148_512 276_323 276_203 "
         "532_128 1044_81 1044_51 1044_32 1024_32 1024_3"),
        (1024, 65536, 1024, "36_1024 36_1024 52_1024 52_1024 84_1024 148_1024 148_1024 276_645 "
         "276_406 532_256 1044_161 1044_102 1044_64 1024_64 1024_3"),
    ],
)  # fmt: skip
def test_layers_of_the_published_sizes(resolution, channel_base, channel_max, names):
    signals = schedule(
        resolution=resolution,
        img_channels=3,
        channel_base=channel_base,
        channel_max=channel_max,
        num_layers=14,
        num_critical=2,
        margin_size=10,
    )
    assert " ".join(f"{s.size}_{s.channels}" for s in signals) == names


@pytest.mark.parametrize("changes", [{}, ROTATION])
def test_gradient_of_the_latent_is_the_finite_difference(changes):
    generator = tiny(**changes).double()
    for value in generator.synthesis.input.affine.parameters():
        value.normal_()
    wp = torch.randn(1, generator.num_ws, 8, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(wp)
    pixels = torch.randn(1, 3, 32, 32, dtype=torch.float64)

    def score(code):
        return (generator.synthesis(code) * pixels).sum()

    with WeightGradients() as counted:
        score(wp).backward()
    assert counted.count == 0  # frozen weights cost no gradient
    assert wp.grad.abs().sum((0, 2)).gt(0).all()  # every layer has an effect
    step = 1e-7  # 300,000 kinks of leaky ReLU: a longer step crosses some
    with torch.no_grad():
        slope = (score(wp + step * direction) - score(wp - step * direction)) / (2 * step)
    torch.testing.assert_close((wp.grad * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_turning_the_features_turns_the_image():
    """A quarter turn is exact for r, whose layers have no direction, and is not for t."""
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    wp = torch.randn(1, 7, 8)
    for changes, exact in ((ROTATION, True), ({}, False)):
        generator = tiny(**changes)
        image = generator.synthesis(wp)
        generator.synthesis.input.transform.copy_(quarter)
        turned = generator.synthesis(wp)
        close = torch.allclose(turned.rot90(1, (2, 3)), image, rtol=1e-3, atol=1e-4)
        close |= torch.allclose(turned.rot90(-1, (2, 3)), image, rtol=1e-3, atol=1e-4)
        assert close is exact
        assert not torch.allclose(turned, image, atol=1e-2)


def test_moving_the_features_moves_the_image():
    """By whole pixels of the coarsest layer, away from the borders."""
    generator = tiny().double()
    wp = torch.randn(1, 7, 8, dtype=torch.float64)
    image = generator.synthesis(wp)
    cells = generator.synthesis.input.signal.rate
    generator.synthesis.input.transform[0, 2] = 2 / cells
    moved = generator.synthesis(wp).roll(2 * 32 // cells, -1)
    inside = (..., slice(4, 28), slice(8, 24))
    assert (moved - image)[inside].abs().max() < 0.05 * image.std()


def test_there_is_no_noise():
    generator = tiny()
    wp = torch.randn(2, 7, 8)
    image = generator.synthesis(wp)
    assert torch.equal(image, generator.synthesis(wp, noise="none"))
    assert torch.equal(image, generator.synthesis(wp, noise="random", seeds=[1, 2]))
    with pytest.raises(ValueError, match="expected 'const', 'none' or 'random'"):
        generator.synthesis(wp, noise="some")


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.05), (torch.float16, 0.005)])
def test_low_precision_stays_close(dtype, limit):
    found, generator = golden("t")
    with torch.autocast("cpu", dtype):
        image = generator.synthesis(found.input("w_plus"))
    assert image.dtype == torch.float32
    assert found.error("image", image) < limit


def test_fresh_features_lie_in_the_band():
    generator = tiny(channel_max=64, channel_base=4096)
    radius = generator.synthesis.input.freqs.norm(dim=1)
    assert radius.max() <= 2 and radius.std() > 0.2
    assert generator.synthesis.input.phases.abs().max() <= 0.5
    motion = generator.synthesis.input.motion(torch.randn(2, 8))
    assert torch.equal(motion, torch.eye(3).expand(2, 3, 3))
    half_turn = generator.synthesis.input
    half_turn.affine.bias.copy_(torch.tensor([0.0, 2.0, 0.0, 0.0]))
    angle = math.atan2(half_turn.motion(torch.zeros(1, 8))[0, 1, 0], 0)
    assert angle == pytest.approx(math.pi / 2)


def test_conditional():
    generator = tiny(c_dim=3)
    assert generator.mapping(torch.randn(2, 8), torch.eye(3)[:2]).shape == (2, 8)
    with pytest.raises(ValueError, match="was given no label"):
        generator.mapping(torch.randn(2, 8))


def test_bundle_keeps_frequencies_and_filters_exact(tmp_path):
    generator = tiny(**ROTATION)
    save_bundle(tmp_path / "g.safetensors", generator, {})
    loaded = load_bundle(tmp_path / "g.safetensors")
    assert isinstance(loaded, StyleGAN3Generator)
    for key, value in generator.state_dict().items():
        exact = key.endswith(("freqs", "phases", "_filter"))
        assert torch.equal(loaded.state_dict()[key], value if exact else value.half().float()), key


def test_refusals():
    generator = tiny()
    with pytest.raises(ValueError, match=r"f of shape .* for a StyleGAN3; expected no f.*Style"):
        generator.synthesis(torch.zeros(1, 7, 8), f=torch.zeros(1, 8, 16, 16))
    with pytest.raises(ValueError, match=r"wp of shape \(1, 6, 8\); expected \[B,7,8\]"):
        generator.synthesis(torch.zeros(1, 6, 8))
