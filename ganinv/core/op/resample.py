"""FIR up- and downsampling, alone and joined to a convolution, as StyleGAN2 pads and scales
them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.op.upfirdn2d import upfirdn2d


def setup_filter(taps: Sequence[float] = (1, 3, 3, 1)) -> Tensor:
    """Separable taps -> [n,n] filter that sums to one; (1,3,3,1) is StyleGAN2's."""
    f = torch.tensor(taps, dtype=torch.float32)
    f = f.outer(f)
    return f / f.sum()


def upsample2d(x: Tensor, f: Tensor) -> Tensor:
    """[B,C,H,W] -> [B,C,2H,2W] with the FIR filter f [n,n]."""
    n = f.shape[0]
    before, after = (n + 1) // 2, (n - 2) // 2
    return upfirdn2d(x, f, up=2, padding=(before, after, before, after), gain=4.0)


def downsample2d(x: Tensor, f: Tensor) -> Tensor:
    """[B,C,H,W] -> [B,C,H/2,W/2] with the FIR filter f [n,n]."""
    n = f.shape[0]
    before, after = (n - 1) // 2, (n - 2) // 2
    return upfirdn2d(x, f, down=2, padding=(before, after, before, after))


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    groups: int = 1,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolution with optional 2x FIR up- or downsampling; "same" padding.

    Args:
        x: [B,Ci,H,W].
        weight: [Co,Ci/groups,k,k], k odd. In the up-case the kernel is used as stored, unflipped,
            by the transposed convolution, which is how every PyTorch StyleGAN2 stores it.
        f: [n,n] filter, needed when up or down is 2.
        up: 1 or 2.
        down: 1 or 2.
        groups: as in `torch.nn.functional.conv2d`.
        bias: [Co] or None; not when up is 2.

    Returns:
        [B,Co,H*up/down,W*up/down].
    """
    k = weight.shape[-1]
    weight = weight.to(x.dtype)
    if up == 1 and down == 1:
        return F.conv2d(x, weight, bias, padding=k // 2, groups=groups)
    assert f is not None and (up, down) in ((2, 1), (1, 2)), (f, up, down)
    n = f.shape[0]
    if down == 2:
        before, after = k // 2 + (n - 1) // 2, k // 2 + (n - 2) // 2
        padding = (before, after, before, after)
        if k == 1:  # filter and drop pixels first: a quarter of the multiplications
            return F.conv2d(upfirdn2d(x, f, down=2, padding=padding), weight, bias, groups=groups)
        return F.conv2d(upfirdn2d(x, f, padding=padding), weight, bias, stride=2, groups=groups)
    assert bias is None, "the filter comes last"
    if k == 1:
        return upsample2d(F.conv2d(x, weight, groups=groups), f)
    co, ci = weight.shape[:2]
    kernel = weight.reshape(groups, co // groups, ci, k, k).transpose(1, 2)
    kernel = kernel.reshape(groups * ci, co // groups, k, k)
    x = F.conv_transpose2d(x, kernel, stride=2, groups=groups)
    before = k // 2 + (n + 1) // 2 - (k - 1)
    after = k // 2 + (n - 2) // 2 - (k - 2)
    return upfirdn2d(x, f, padding=(before, after, before, after), gain=4.0)
