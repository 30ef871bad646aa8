"""The Laplacian pyramid: its bands add up to the image, and the distance is by hand."""

import pytest
import torch
import torch.nn.functional as F

from ganinv.core.errors import ConfigError
from ganinv.loss.pyramid import LaplacianPyramid


def pyramid(levels=2, growth=1.0):
    return LaplacianPyramid(weight=1.0, levels=levels, growth=growth)


def test_the_bands_add_up_to_the_image():
    image = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    *bands, low = pyramid(3).bands(image)
    assert [band.shape[-2:] for band in bands] == [(64, 48), (32, 24), (16, 12)]
    assert low.shape[-2:] == (8, 6)
    for band in reversed(bands):
        low = band + F.interpolate(low, band.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(low, image)


def test_a_shift_of_colour_is_in_the_coarsest_level_alone():
    x = torch.rand(2, 3, 16, 16)
    x_hat = x.clone()
    x_hat[1] += 0.6
    assert pyramid()(x_hat, x).tolist() == pytest.approx([0, 0.6 / 3], abs=1e-6)
    assert pyramid(growth=4.0)(x_hat, x)[1].item() == pytest.approx(0.6 * 16 / 21, abs=1e-6)


def test_a_dot_by_hand():
    """One level: the blurred dot, every second px of it, enlarged and taken away again."""
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x_hat = x.clone()
    x_hat[0, 0, 4, 4] = 1.0
    taps = torch.tensor([1.0, 4, 6, 4, 1], dtype=torch.float64) / 16
    low = torch.zeros(4, 4, dtype=torch.float64)
    for i, row in ((1, 0), (2, 2), (3, 4)):
        for j, column in ((1, 0), (2, 2), (3, 4)):
            low[i, j] = taps[row] * taps[column]
    fine = x_hat - F.interpolate(low[None, None], (8, 8), mode="bilinear", align_corners=False)
    expected = (fine.abs().mean() + low.abs().mean()) / 2
    assert pyramid(1)(x_hat, x).item() == pytest.approx(expected.item(), abs=1e-12)


def test_refusals():
    with pytest.raises(ConfigError, match="levels=0, growth=1.0 for a Laplacian pyramid; expected"):
        pyramid(0)
    with pytest.raises(ConfigError, match="3 levels of a Laplacian pyramid on images of 16 px; ex"):
        pyramid(3).bands(torch.zeros(1, 3, 16, 16))
    free = LaplacianPyramid(weight=1.0, levels=None, growth=1.0)
    assert [len(free.bands(torch.zeros(1, 3, side, side))) for side in (16, 64, 256)] == [2, 4, 6]
