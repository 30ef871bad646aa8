"""The four latents of ganinv and the arithmetic of their shapes.

z  [B,D]      input of the mapping network, N(0, I)
w  [B,D]      output of the mapping network
wp [B,L,D]    one w for each style input of the synthesis network ("W+"), L = num_ws
f  [B,C,h,h]  a feature map that replaces the coarse half of the synthesis (BDInvert's F)

    slerp   z_t = |z_t| (sin((1-t) a) u_0 + sin(t a) u_1) / sin a,   u_i = z_i / |z_i|,
            cos a = u_0 . u_1,   |z_t| = (1 - t) |z_0| + t |z_1|

Source: Shoemake, "Animating rotation with quaternion curves", 1985, for slerp; White, arXiv
1609.04468, for its use on z, whose samples all lie near a sphere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEARLY_STRAIGHT = 1e-4  # sin a below which slerp is lerp


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


def slerp(first: Tensor, second: Tensor, t: float | Tensor) -> Tensor:
    """z [B,D], z [B,D] -> [B,D] on the arc between them; between opposite points, where there are
    many arcs, and along the same direction, a line.

    Args:
        first: where t is 0.
        second: where t is 1.
        t: a number, or [B,1].
    """
    lengths = [z.norm(dim=1, keepdim=True) for z in (first, second)]
    u0, u1 = first / lengths[0], second / lengths[1]
    angle = (u0 * u1).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * u0 + (t * angle).sin() * u1) / sine
    straight = first + (second - first) * t
    length = lengths[0] + (lengths[1] - lengths[0]) * t
    return torch.where(sine > NEARLY_STRAIGHT, arc * length, straight)
