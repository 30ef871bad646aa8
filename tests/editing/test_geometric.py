"""Moving f moves the image; the four paddings by hand; what is refused."""

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.core.interface import Inversion
from ganinv.editing.geometric import geometric, warp
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator

SHAPE = {"z_dim": 8, "w_dim": 8, "resolution": 64, "img_channels": 3, "mapping_layers": 2,
         "channel_base": 512, "channel_max": 8}  # fmt: skip


@pytest.mark.parametrize("kind", ["stylegan", "stylegan2"])
def test_a_whole_cell_of_f_is_as_many_pixels_of_the_image(kind):
    """Without noise every layer is shift-equivariant, but for the zeros around the edges."""
    if kind == "stylegan":
        G = StyleGANGenerator(layerwise=False, final_tanh=False, **SHAPE)
    else:
        G = StyleGAN2Generator(c_dim=0, conv_clamp=None, **SHAPE)
    G = G.double().requires_grad_(False)
    wp, f = torch.randn(2, 10, 8).double(), torch.randn(2, 8, 32, 32).double()
    for edge in (slice(0, 12), slice(20, 32)):  # so that no layer sees content and edges at once:
        f[..., edge, :] = f[..., edge] = 0  # StyleGAN's norms would tell every pixel of it
    found = Inversion(wp=wp, f=f)
    moved = geometric(found, size=64, shift=(2, -4), padding="zeros")  # one cell, two cells
    torch.testing.assert_close(moved.f, f.roll((1, -2), (2, 3)))
    before = G.synthesis(wp, f=f, noise="none")
    after = G.synthesis(wp, f=moved.f, noise="none")
    inner = slice(16, 48)
    expected = before.roll((2, -4), (2, 3))[..., inner, inner]
    torch.testing.assert_close(after[..., inner, inner], expected, rtol=0, atol=1e-6)
    assert (after - before)[..., inner, inner].abs().max() > 1e-3
    assert moved.wp is wp and found.f is f


def at(*points, size=8):
    image = torch.zeros(1, 1, size, size)
    for row, column in points:
        image[0, 0, row, column] = 1.0
    return image


def test_shift_rotation_and_scale_by_hand():
    common = {"size": 8, "padding": "zeros"}
    torch.testing.assert_close(warp(at((2, 3)), shift=(1, 2), **common), at((3, 5)))
    turned = warp(at((3, 6)), angle=90, **common)  # counter-clockwise about the middle: right -> up
    torch.testing.assert_close(turned, at((1, 3)), atol=1e-6, rtol=0)
    turned = warp(at((1, 4)), angle=90, centre=(1.5, 1.5), **common)  # about cell (1, 1)
    torch.testing.assert_close(turned, at(), atol=1e-6, rtol=0)
    turned = warp(at((4, 4)), angle=90, centre=(4.5, 1.5), **common)  # about cell (4, 1)
    torch.testing.assert_close(turned, at((1, 1)), atol=1e-6, rtol=0)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    twice = warp(ramp, scale=2, **common)
    torch.testing.assert_close(twice[0, 0, 4], (torch.arange(8.0) - 3.5) / 2 + 3.5)
    back = warp(warp(at((4, 4)), angle=90, **common), angle=-90, **common)
    torch.testing.assert_close(back, at((4, 4)), atol=1e-5, rtol=0)
    whole = warp(torch.ones(1, 1, 4, 4), size=64, shift=(16, 0), padding="zeros")  # a cell is 16 px
    assert whole[0, 0, :, 0].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("padding", "row"),
    [
        ("border", [0, 0, 0, 1]),
        ("zeros", [0, 0, 0, 1]),
        ("reflection", [1, 0, 0, 1]),
        ("circular", [2, 3, 0, 1]),
    ],
)
def test_the_four_paddings(padding, row):
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    moved = warp(ramp, size=4, shift=(0, 2), padding=padding)
    torch.testing.assert_close(moved[0, 0, 1], torch.tensor(row, dtype=torch.float32))
    up = warp(ramp + 1, size=4, shift=(0, 2), padding=padding)[0, 0, 1, 0]
    assert float(up) == (0 if padding == "zeros" else row[0] + 1)


def test_circular_shifts_of_a_part_of_a_cell_are_exact_at_the_seam():
    f = torch.randn(1, 2, 4, 4)
    half = warp(f, size=4, shift=(0, 0.5), padding="circular")
    torch.testing.assert_close(half, (f + f.roll(1, 3)) / 2, atol=1e-5, rtol=0)


def test_refusals():
    with pytest.raises(ConfigError, match="an inversion without f; expected one of bdinvert"):
        geometric(Inversion(wp=torch.zeros(1, 2, 3)), size=8)
    with pytest.raises(ConfigError, match="scale=0; expected a number above 0"):
        warp(torch.zeros(1, 1, 4, 4), size=4, scale=0)
    with pytest.raises(ConfigError, match="padding=wrap; expected one of border, reflection"):
        warp(torch.zeros(1, 1, 4, 4), size=4, padding="wrap")
