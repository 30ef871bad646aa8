"""Pad, upsample by zero insertion, FIR-filter, downsample: the resampling primitive of StyleGAN2.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv 1912.04958.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Convolve the zero-inserted, padded `x` with `f`, then keep every `down`-th pixel.

    Args:
        x: [B,C,H,W], any floating type; the filter is cast to it.
        f: [fh,fw] FIR filter; a true convolution, i.e. the filter is flipped.
        up: zeros inserted: each pixel becomes an up x up cell with the pixel at its upper left.
        down: stride of the result.
        padding: (left, right, top, bottom) px of the zero-inserted image; negative values crop.
        gain: factor on the result.

    Returns:
        [B,C,(H*up + top + bottom - fh)//down + 1, (W*up + left + right - fw)//down + 1].
    """
    channels = x.shape[1]
    kernel = (f * gain).to(x.dtype)
    left, right, top, bottom = padding
    if up > 1:
        # A transposed convolution inserts the zeros and filters in one pass. Its output is the full
        # convolution, fh-1 px longer on each side than the unpadded one, so the padding shrinks.
        fh, fw = kernel.shape
        weight = kernel.expand(channels, 1, fh, fw)
        x = F.conv_transpose2d(x, weight, stride=up, groups=channels)
        x = F.pad(
            x,
            (left - fw + 1, right - fw + up, top - fh + 1, bottom - fh + up),
        )
        return x[:, :, ::down, ::down] if down > 1 else x
    weight = kernel.flip((0, 1)).expand(channels, 1, *kernel.shape)
    if left == right >= 0 and top == bottom >= 0:
        return F.conv2d(x, weight, stride=down, padding=(top, left), groups=channels)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=down, groups=channels)
