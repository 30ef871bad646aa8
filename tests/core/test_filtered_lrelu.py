"""The filtered leaky ReLU: its filters against their specification, itself against its parts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ganinv.core.op.filtered_lrelu import filtered_lrelu, lowpass_filter
from tests.core.test_op import upfirdn2d_by_definition


def response(f, frequency, rate):
    """Amplitude of the filter [n] at a frequency."""
    t = np.arange(len(f)) - (len(f) - 1) / 2
    return float((f.numpy() * np.cos(2 * np.pi * frequency / rate * t)).sum())


def test_filter_passes_low_and_stops_high_frequencies():
    f = lowpass_filter(48, cutoff=8.0, width=6.0, rate=64)
    assert f.sum().item() == pytest.approx(1)
    assert response(f, 0, 64) == pytest.approx(1)
    assert response(f, 4, 64) == pytest.approx(1, abs=0.01)
    assert response(f, 8, 64) == pytest.approx(0.5, abs=0.02)
    assert abs(response(f, 14, 64)) < 0.01
    assert torch.equal(f, f.flip(0))
    assert lowpass_filter(1, cutoff=8.0, width=6.0, rate=64) is None


def test_radial_filter_has_the_symmetries_of_the_square():
    f = lowpass_filter(12, cutoff=8.0, width=10.0, rate=64, radial=True)
    assert f.shape == (12, 12) and f.sum().item() == pytest.approx(1)
    for other in (f.t(), f.flip(0), f.rot90()):
        torch.testing.assert_close(f, other)
    separable = lowpass_filter(12, cutoff=8.0, width=10.0, rate=64)
    assert (f - separable.outer(separable)).abs().max() > 1e-4


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize("padding", [(5, 6), (-1, 3)])
def test_it_is_its_parts(radial, padding):
    x, bias = torch.randn(2, 3, 9, 9, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    up, down = torch.randn(6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    down = down.outer(torch.randn(4, dtype=torch.float64)) if radial else down
    ours = filtered_lrelu(
        x,
        bias,
        up_filter=up,
        down_filter=down,
        up=2,
        down=2,
        padding=padding,
        gain=1.5,
        slope=0.2,
        clamp=0.9,
    )
    edges = (*padding, *padding)
    y = (x + bias[:, None, None]).numpy()
    y = upfirdn2d_by_definition(y, up.outer(up).numpy(), 2, 1, edges, 4.0)
    y = (F.leaky_relu(torch.tensor(y), 0.2) * 1.5).clamp(-0.9, 0.9).numpy()
    square = down if radial else down.outer(down)
    expected = upfirdn2d_by_definition(y, square.numpy(), 1, 2, (0,) * 4, 1.0)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_without_filters_it_is_bias_and_clamp():
    x, bias = torch.randn(2, 3, 5, 5), torch.randn(3)
    ours = filtered_lrelu(
        x,
        bias,
        up_filter=None,
        down_filter=None,
        up=1,
        down=1,
        padding=(0, 0),
        gain=1.0,
        slope=1.0,
        clamp=0.5,
    )
    assert torch.equal(ours, (x + bias[:, None, None]).clamp(-0.5, 0.5))
