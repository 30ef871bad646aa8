"""Pad, upsample by zero insertion, FIR-filter, downsample: the resampling primitive of StyleGAN2.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv 1912.04958.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int | tuple[int, int] = 1,
    down: int | tuple[int, int] = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Convolve the zero-inserted, padded `x` with `f`, then keep every `down`-th pixel.

    Args:
        x: [B,C,H,W], any floating type; the filter is cast to it.
        f: [fh,fw] FIR filter; a true convolution, i.e. the filter is flipped.
        up: zeros inserted: each pixel becomes an up x up cell with the pixel at its upper left;
            (vertical, horizontal) where they differ.
        down: stride of the result; (vertical, horizontal) where they differ.
        padding: (left, right, top, bottom) px of the zero-inserted image; negative values crop.
        gain: factor on the result.

    Returns:
        [B,C,(H*up + top + bottom - fh)//down + 1, (W*up + left + right - fw)//down + 1].
    """
    up_y, up_x = (up, up) if isinstance(up, int) else up
    down_y, down_x = (down, down) if isinstance(down, int) else down
    channels = x.shape[1]
    kernel = (f * gain).to(x.dtype)
    left, right, top, bottom = padding
    if up_y > 1 or up_x > 1:
        # A transposed convolution inserts the zeros and filters in one pass. Its output is the full
        # convolution, fh-1 px longer on each side than the unpadded one, so the padding shrinks.
        fh, fw = kernel.shape
        weight = kernel.expand(channels, 1, fh, fw)
        x = F.conv_transpose2d(x, weight, stride=(up_y, up_x), groups=channels)
        x = F.pad(
            x,
            (left - fw + 1, right - fw + up_x, top - fh + 1, bottom - fh + up_y),
        )
        return x[:, :, ::down_y, ::down_x] if down_y > 1 or down_x > 1 else x
    weight = kernel.flip((0, 1)).expand(channels, 1, *kernel.shape)
    stride = (down_y, down_x)
    if left == right >= 0 and top == bottom >= 0:
        return F.conv2d(x, weight, stride=stride, padding=(top, left), groups=channels)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride, groups=channels)
