"""The operators: against definitions written out, and against each other."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ganinv.core.op import (
    Scaled,
    bias_act,
    conv2d_resample,
    mix_channels,
    modulated_conv2d,
    modulated_layer,
    noisy_lrelu,
    setup_filter,
    upfirdn2d,
)


def upfirdn2d_by_definition(x, f, up, down, padding, gain):
    """Insert zeros, pad or crop, convolve pixel by pixel, drop pixels."""
    left, right, top, bottom = padding
    b, c, h, w = x.shape
    big = np.zeros((b, c, h * up, w * up))
    big[:, :, ::up, ::up] = x
    big = np.pad(
        big, ((0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
    )
    big = big[:, :, max(-top, 0) : big.shape[2] - max(-bottom, 0)]
    big = big[:, :, :, max(-left, 0) : big.shape[3] - max(-right, 0)]
    fh, fw = f.shape
    flipped = f[::-1, ::-1] * gain
    rows, columns = big.shape[2] - fh + 1, big.shape[3] - fw + 1
    out = np.empty((b, c, rows, columns))
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = (big[:, :, i : i + fh, j : j + fw] * flipped).sum((2, 3))
    return out[:, :, ::down, ::down]


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 1, 2, 1), (1, 3, 0, 2), (-1, 2, 1, -1)])
def test_upfirdn2d_is_its_definition(up, down, padding):
    rng = np.random.default_rng(0)
    x, f = rng.standard_normal((2, 3, 7, 6)), rng.standard_normal((4, 3))  # asymmetric
    ours = upfirdn2d(torch.tensor(x), torch.tensor(f), up, down, padding, gain=1.7)
    np.testing.assert_allclose(
        ours, upfirdn2d_by_definition(x, f, up, down, padding, 1.7), atol=1e-12
    )


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("k", [1, 3])
def test_conv2d_resample_is_filter_and_convolution(up, down, k):
    """Up: zero insertion, convolution with the flipped kernel, FIR. Down: FIR, stride."""
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weight = torch.randn(5, 3, k, k, dtype=torch.float64)
    f = setup_filter().double()
    ours = conv2d_resample(x, weight, f, up=up, down=down)
    if up == 2 and k == 3:
        zeros = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
        zeros[:, :, ::2, ::2] = x
        wide = torch.nn.functional.pad(zeros, (2, 1, 2, 1))
        mid = torch.nn.functional.conv2d(wide, weight.flip((2, 3)))
        expected = upfirdn2d(mid, f, padding=(1, 1, 1, 1), gain=4.0)
    elif up == 2:
        mid = torch.nn.functional.conv2d(x, weight)
        expected = upfirdn2d(mid, f, up=2, padding=(2, 1, 2, 1), gain=4.0)
    else:
        pad = k // 2 + 1
        smooth = upfirdn2d(x, f, padding=(pad, pad, pad, pad))
        expected = torch.nn.functional.conv2d(smooth, weight, stride=2)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected)


def test_bias_act_by_hand():
    x, bias = torch.tensor([[[[-1.0, 3.0]]]]), torch.tensor([0.5])
    out = bias_act(x, bias, "lrelu", clamp=2.0)
    root = 2**0.5  # (-0.5 -> -0.1, 3.5) * sqrt 2 = (-0.14, 4.95), the clamp at 2
    torch.testing.assert_close(out, torch.tensor([[[[-0.1 * root, 2.0]]]]))


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
def test_fused_and_unfused_agree_with_gradients(up, demodulate):
    inputs = [
        torch.randn(*shape, dtype=torch.float32, requires_grad=True)
        for shape in ((3, 4, 6, 6), (5, 4, 3, 3), (3, 4))
    ]
    outputs = []
    for fused in (True, False):
        y = modulated_conv2d(*inputs, demodulate=demodulate, f=setup_filter(), up=up, fused=fused)
        outputs.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    for fused_value, value in zip(*outputs, strict=True):
        torch.testing.assert_close(value, fused_value, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("each", [True, False])
def test_bias_and_noise_are_added_in_either_layout(layout, each):
    y = torch.randn(3, 4, 6, 5, dtype=torch.float64).to(memory_format=layout)
    bias, strength = torch.randn(2, 3, 4, dtype=torch.float64)
    noise = torch.randn((3, 1, 6, 5) if each else (6, 5), dtype=torch.float64)
    lrelu = torch.nn.LeakyReLU(0.2)
    found = noisy_lrelu(y, bias, noise, strength)
    noisy = y + bias[..., None, None] + strength[..., None, None] * noise
    torch.testing.assert_close(found, lrelu(noisy))
    assert found.is_contiguous(memory_format=layout)
    found = noisy_lrelu(y, bias, None, strength)
    torch.testing.assert_close(found, lrelu(y + bias[..., None, None]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_an_image_in_either_layout(layout):
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    weight = torch.randn(3, 2, 4, dtype=torch.float64)
    found = mix_channels(x, weight)
    torch.testing.assert_close(found, torch.einsum("bchw,bkc->bkhw", x, weight))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert found.is_contiguous(memory_format=layout)
    assert gradient.is_contiguous(memory_format=layout)


def layer_inputs():
    """x and its scale, weight, styles, bias, noise, strength, in float64."""
    shapes = ((3, 4, 6, 6), (3, 4), (5, 4, 3, 3), (3, 4), (5,), (3, 1, 12, 12), ())
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_layer_is_its_steps_one_after_the_other(fused, clamp, noisy):
    """With the gradients of all that goes in."""
    x, scale, weight, styles, bias, noise, strength = layer_inputs()
    f, more = setup_filter().double(), {"up": 2, "fused": fused, "clamp": clamp}
    made = modulated_layer(
        Scaled(x, scale), weight, styles, bias, noise if noisy else None, strength, f=f, **more
    )
    y = modulated_conv2d(x * scale[:, :, None, None], weight, styles, f=f, up=2)
    plain = bias_act(y + noise * strength if noisy else y, bias, "lrelu", clamp=clamp)
    torch.testing.assert_close(made.whole(), plain)
    inputs = (x, scale, weight, styles, bias, *((noise, strength) if noisy else ()))
    ours, own = (torch.autograd.grad(z.square().sum(), inputs) for z in (made.whole(), plain))
    for gradient, expected in zip(ours, own, strict=True):
        torch.testing.assert_close(gradient, expected)


class Passes(TorchDispatchMode):
    """The operators that go over a map of at least so many numbers."""

    def __init__(self, size):
        super().__init__()
        self.size, self.names = size, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        big = any(isinstance(x, torch.Tensor) and x.numel() >= self.size for x in (*args, out))
        if big and not any(
            r.alias_info and not r.alias_info.is_write for r in func._schema.returns
        ):
            self.names.append(func.__name__.split(".")[0])
        return out


def test_a_layer_passes_over_its_maps_as_seldom_as_the_module_says():
    """Scale, convolution, bias and noise, activation; the next layer's scale takes the rest."""
    x = torch.randn(2, 16, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(16, 16, 3, 3).to(memory_format=torch.channels_last)
    styles, bias, noise = torch.randn(2, 16), torch.randn(16), torch.randn(32, 32)
    with Passes(x.numel()) as passes:
        made = modulated_layer(
            Scaled(x, styles), weight, styles, bias, noise, torch.ones(()),
            f=setup_filter(), up=1, fused=False, clamp=None,
        )  # fmt: skip
        made.times(styles)
    assert passes.names == ["mul", "convolution", "baddbmm", "leaky_relu_", "mul"]


class WeightGradients(TorchDispatchMode):
    """Counts convolution_backward calls that compute the gradient of a kernel."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.count += bool(args[10][1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("fused", "expected"), [(False, 0), (True, 1)])
def test_a_frozen_unfused_convolution_computes_no_weight_gradient(fused, expected):
    x, styles = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    y = modulated_conv2d(x, torch.randn(5, 4, 3, 3), styles, fused=fused)
    with WeightGradients() as counted:
        y.sum().backward()
    assert styles.grad is not None
    assert counted.count == expected


def test_half_precision_survives_large_styles():
    """Products of 512 x 9 large terms overflow float16 unless they are scaled beforehand."""
    x, weight = 200 * torch.randn(2, 512, 8, 8), torch.randn(16, 512, 3, 3)
    styles = 100 * torch.randn(2, 512)
    exact = modulated_conv2d(x, weight, styles)
    half = modulated_conv2d(x.half(), weight, styles)
    assert half.isfinite().all()
    assert (half.float() - exact).norm() / exact.norm() < 5e-3


@pytest.mark.parametrize("axis", [0, 1])
def test_upfirdn2d_with_a_factor_for_each_axis_is_its_definition(axis):
    rng = np.random.default_rng(0)
    x, f = rng.standard_normal((2, 3, 7, 6)), rng.standard_normal(4)
    f = f[:, None] if axis == 0 else f[None]
    factor = (2, 1) if axis == 0 else (1, 2)
    padding = (0, 0, 3, 1) if axis == 0 else (3, 1, 0, 0)
    ours = upfirdn2d(torch.tensor(x), torch.tensor(f), factor, factor, padding, gain=1.7)
    # the definition knows one factor only: the zeros of one axis are inserted here
    big = np.zeros((2, 3, 7 * factor[0], 6 * factor[1]))
    big[:, :, :: factor[0], :: factor[1]] = x
    expected = upfirdn2d_by_definition(big, f, 1, 1, padding, 1.7)
    np.testing.assert_allclose(ours, expected[:, :, :: factor[0], :: factor[1]], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_clamp_has_torch_clamp_s_value_and_gradients_in_one_pass_each_way(dtype):
    """Over values within, beyond and far beyond the limit; NaN stays NaN."""
    x = torch.linspace(-3, 3, 40, dtype=dtype).reshape(2, 5, 2, 2)
    scale = torch.linspace(0.5, 2, 10, dtype=dtype).reshape(2, 5)
    ends = []
    for clamped in (
        lambda u, s: Scaled(u, s).clamped(1.0).whole(),
        lambda u, s: Scaled(u, s).whole().clamp(-1.0, 1.0),
    ):
        u, s = x.clone().requires_grad_(), scale.clone().requires_grad_()
        y = clamped(u, s)
        first = torch.autograd.grad(y.pow(3).sum(), (u, s), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), (u, s))
        ends.append([y, *first, *second])
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert Scaled(torch.full((1, 1, 1, 1), math.nan), torch.ones(1, 1)).clamped(1.0).u.isnan().all()

    bias = torch.zeros(5, dtype=dtype)
    lrelu = (F.leaky_relu(x, 0.2) * 2**0.5).clamp(-1, 1)
    torch.testing.assert_close(bias_act(x, bias, "lrelu", clamp=1.0), lrelu, rtol=0, atol=0)
    kept = x.clone()
    torch.testing.assert_close(bias_act(x, None, clamp=1.0), x.clamp(-1, 1), rtol=0, atol=0)
    assert torch.equal(x, kept)  # what it was given is not written to

    names = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function._overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    u = x.clone().requires_grad_()
    with Calls():
        Scaled(u, scale).clamped(1.0).u.sum().backward()
    assert [name for name in names if "hardtanh" in name] == ["hardtanh_", "hardtanh_backward"]
    assert not {"where", "ge", "le", "lt", "gt", "clamp"} & set(names)
