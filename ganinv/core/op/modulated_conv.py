"""The weight-modulated convolution of StyleGAN2, in two forms that compute the same function.

    y_b = d_b * (W conv (s_b * x_b)),   d_bo = 1 / sqrt(sum_ik (W_oik s_bi)^2 + 1e-8)

fused:    the style is folded into one kernel per image and all images run as groups of a single
          convolution. Its backward pass needs the gradient of that kernel, even when W is frozen,
          because the gradient of the style flows through it.
un-fused: scale the input, convolve with the shared W, scale the output. With W frozen no
          weight-gradient convolution is computed at all; ONNX can express it with a free batch
          size.

Symbols: x [B,Ci,H,W], W [Co,Ci,k,k], s [B,Ci], d [B,Co].
Source: Karras et al., arXiv 1912.04958, eq. 1-3; half-precision scaling: arXiv 2006.06676, app.
D.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganinv.core.op.dense import full
from ganinv.core.op.resample import conv2d_resample


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
        demodulate: divide by the expected norm d.
        f: [n,n] FIR filter, needed when up is 2.
        up: 1 or 2.
        fused: which of the two forms.

    Returns:
        [B,Co,H*up,W*up].
    """
    with torch.autocast(x.device.type, enabled=False):  # d is a sum over Ci*k*k squares
        weight, styles = full(weight), full(styles)
        if demodulate:
            if x.dtype == torch.float16:
                # W and s may be scaled freely, d undoes it. Scaled like this, no sum over Ci*k*k
                # products can leave the range of half precision.
                weight = weight / (weight.abs().amax((1, 2, 3), True) * weight[0].numel() ** 0.5)
                styles = styles / styles.abs().amax(1, keepdim=True).clamp_min(1e-12)
            d = (styles.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
    if not fused:
        y = conv2d_resample(x * styles.to(x.dtype)[:, :, None, None], weight, f, up=up)
        return y * d.to(y.dtype)[:, :, None, None] if demodulate else y
    kernels = weight.unsqueeze(0) * styles[:, None, :, None, None]  # [B,Co,Ci,k,k]
    if demodulate:
        kernels = kernels * d[:, :, None, None, None]
    b, _, h, w = x.shape
    y = conv2d_resample(x.reshape(1, -1, h, w), kernels.flatten(0, 1), f, up=up, groups=b)
    return y.reshape(b, -1, *y.shape[2:])
