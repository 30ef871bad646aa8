"""The weight-modulated convolution of StyleGAN2, in two forms that compute the same function.

    y_b = d_b * (W conv (s_b * x_b)),   d_bo = 1 / sqrt(sum_ik (W_oik s_bi)^2 + 1e-8)

fused:    the style is folded into one kernel per image and all images run as groups of a single
          convolution. Its backward pass needs the gradient of that kernel, even when W is frozen,
          because the gradient of the style flows through it.
un-fused: scale the input, convolve with the shared W, scale the output. With W frozen no
          weight-gradient convolution is computed at all; ONNX can express it with a free batch
          size.

A layer of un-fused convolutions passes over its maps as seldom as it can. Leaky ReLU lets a factor
d > 0 through, and so does the layer's gain:

    sqrt 2 lrelu(d y + b + n)  =  (sqrt 2 d) u,     u = lrelu(y + b/d + n/d)

The factor in brackets stays a number a channel (`Scaled`) until the next layer multiplies by its
style, and takes both in one pass.

Symbols: x [B,Ci,H,W], W [Co,Ci,k,k], s [B,Ci], d [B,Co], b bias [Co], n noise [1 or B,1,H,W].
Source: Karras et al., arXiv 1912.04958, eq. 1-3; half-precision scaling: arXiv 2006.06676, app.
D.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.op.bias_act import noisy_lrelu
from ganinv.core.op.dense import full
from ganinv.core.op.resample import conv2d_resample


class Scaled(NamedTuple):
    """The map u * scale, not yet multiplied: u [B,C,H,W], scale [B,C] or None for 1."""

    u: Tensor
    scale: Tensor | None = None

    def times(self, factor: Tensor) -> Tensor:
        """The map, each channel times a factor [B,C]; its type is u's."""
        factor = factor if self.scale is None else factor * self.scale
        return self.u * factor.to(self.u.dtype)[:, :, None, None]

    def whole(self) -> Tensor:
        """The map itself, [B,C,H,W]."""
        return self.u if self.scale is None else Scaled(self.u).times(self.scale)

    def clamped(self, limit: float) -> Scaled:
        """The map within +-limit; its scale is not None. torch.clamp has this value and gradient as
        well, but takes four passes for the gradient and keeps one more map for it."""
        assert self.scale is not None  # the map, then, is nobody else's
        return Scaled(F.hardtanh(self.whole(), -limit, limit, inplace=True))


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    f: Tensor | None = None,
    up: int = 1,
    fused: bool = False,
) -> Tensor:
    """Modulated convolution with "same" padding and optional 2x upsampling.

    Args:
        x: [B,Ci,H,W]; its type is the type of the convolution and of the result.
        weight: [Co,Ci,k,k].
        styles: [B,Ci], the scale s of each input channel.
        demodulate: divide by the expected norm 1/d.
        f: [n,n] FIR filter, needed when up is 2.
        up: 1 or 2.
        fused: which of the two forms.

    Returns:
        [B,Co,H*up,W*up].
    """
    weight, styles, norm = _normed(x, weight, styles, demodulate)
    if fused:
        return _one_kernel_an_image(x, weight, styles, norm, f, up)
    y = conv2d_resample(Scaled(x).times(styles), weight, f, up=up)
    return y if norm is None else Scaled(y, 1 / norm).whole()


def modulated_layer(
    x: Scaled,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    *,
    f: Tensor,
    up: int,
    fused: bool,
    clamp: float | None,
) -> Scaled:
    """sqrt 2 lrelu(modulated convolution + noise * strength + bias), then clamped.

    Args:
        x: [B,Ci,H,W].
        weight, styles, f, up, fused: as `modulated_conv2d`.
        bias: b [Co].
        noise: [H*up,W*up] or [B,1,H*up,W*up], or None.
        strength: [], of the noise.
        clamp: largest magnitude of the result, None for no clamp.

    Returns:
        [B,Co,H*up,W*up].
    """
    weight, styles, norm = _normed(x.u, weight, styles, demodulate=True)
    assert norm is not None
    if fused:
        y = _one_kernel_an_image(x.whole(), weight, styles, norm, f, up)
        norm = torch.ones_like(norm)
    else:
        y = conv2d_resample(x.times(styles), weight, f, up=up)
    u = noisy_lrelu(y, bias * norm, noise, strength * norm)
    made = Scaled(u, math.sqrt(2) / norm)
    return made if clamp is None else made.clamped(clamp)


def _normed(
    x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """W and s in float32, as the convolution of x takes them, and their norm 1/d [B,Co]."""
    with torch.autocast(x.device.type, enabled=False):  # d is a sum over Ci*k*k squares
        weight, styles = full(weight), full(styles)
        if not demodulate:
            return weight, styles, None
        if x.dtype == torch.float16:
            # W and s may be scaled freely, d undoes it. Scaled like this, no sum over Ci*k*k
            # products can leave the range of half precision.
            weight = weight / (weight.abs().amax((1, 2, 3), True) * weight[0].numel() ** 0.5)
            styles = styles / styles.abs().amax(1, keepdim=True).clamp_min(1e-12)
        norm = (styles.square() @ weight.square().sum((2, 3)).t() + 1e-8).sqrt()
    return weight, styles, norm


def _one_kernel_an_image(
    x: Tensor, weight: Tensor, styles: Tensor, norm: Tensor | None, f: Tensor | None, up: int
) -> Tensor:
    """The fused form."""
    kernels = weight.unsqueeze(0) * styles[:, None, :, None, None]  # [B,Co,Ci,k,k]
    if norm is not None:
        kernels = kernels / norm[:, :, None, None, None]
    b, _, h, w = x.shape
    y = conv2d_resample(x.reshape(1, -1, h, w), kernels.flatten(0, 1), f, up=up, groups=b)
    return y.reshape(b, -1, *y.shape[2:])
