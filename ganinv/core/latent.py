"""The four latents of ganinv and the arithmetic of their shapes.

z  [B,D]      input of the mapping network, N(0, I)
w  [B,D]      output of the mapping network
wp [B,L,D]    one w for each style input of the synthesis network ("W+"), L = num_ws
f  [B,C,h,h]  a feature map that replaces the coarse half of the synthesis (BDInvert's F)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def num_ws(resolution: int) -> int:
    """Style inputs of a StyleGAN1/2 of this output size in px: 2*log2(R) - 2 (64 -> 10, 1024 ->
    18).

    Raises:
        ValueError: the resolution is not a power of two of at least 4.
    """
    log2 = int(math.log2(resolution)) if resolution >= 4 else 0
    if log2 == 0 or 2**log2 != resolution:
        raise ValueError(f"resolution {resolution} px; expected a power of two, at least 4")
    return 2 * log2 - 2


def repeat_w(w: Tensor, num_ws: int) -> Tensor:
    """w [B,D] -> wp [B,L,D], the same w for every style input; a wp passes through unchanged."""
    if w.ndim == 3:
        if w.shape[1] != num_ws:
            raise ValueError(f"wp of {w.shape[1]} layers; expected num_ws={num_ws}")
        return w
    return w.unsqueeze(1).expand(-1, num_ws, -1)


def truncate(w: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """w_avg + psi * (w - w_avg), on the first `cutoff` layers of a wp (None: all).

    Args:
        w: [B,D] or [B,L,D].
        w_avg: [D].
        psi: 1 leaves w as it is, 0 gives w_avg.
        cutoff: number of layers of a wp that are truncated.
    """
    if cutoff is None:
        return w_avg.lerp(w, psi)
    return torch.cat([w_avg.lerp(w[:, :cutoff], psi), w[:, cutoff:]], dim=1)
