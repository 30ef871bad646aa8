"""The filtered non-linearity of StyleGAN3: leaky ReLU applied at a higher sampling rate, so that
the frequencies it adds are removed before they alias; and the low-pass filters for it.

    x -> + bias -> upsample, low-pass f_u -> leaky ReLU, gain, clamp -> low-pass f_d, downsample

Source: Karras et al., "Alias-Free Generative Adversarial Networks", arXiv 2106.12423; the filters
are designed after J. F. Kaiser (1974).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.op.upfirdn2d import upfirdn2d


def lowpass_filter(
    taps: int, *, cutoff: float, width: float, rate: float, radial: bool = False
) -> Tensor | None:
    """A Kaiser-windowed low-pass filter that sums to one.

    Args:
        taps: its length n; 1 gives None, which means no filter.
        cutoff: frequency of half amplitude, in cycles a unit.
        width: of the transition band, same unit.
        rate: samples a unit.
        radial: one [n,n] filter of radial symmetry, instead of one [n] for both axes.

    Returns:
        [n] or [n,n], float32, or None.
    """
    if taps == 1:
        return None
    nyquist = rate / 2
    attenuation = 2.285 * (taps - 1) * np.pi * (width / nyquist) + 7.95  # dB
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    window = np.kaiser(taps, beta)
    t = np.arange(taps) - (taps - 1) / 2
    if not radial:
        f = np.sinc(cutoff / nyquist * t) * window
        return torch.from_numpy(f / f.sum()).float()
    r = np.hypot(*np.meshgrid(t, t)) / rate * np.pi
    bessel = torch.special.bessel_j1(torch.from_numpy(2 * cutoff * r)).numpy()
    f = bessel / r * np.outer(window, window)
    return torch.from_numpy(f / f.sum()).float()


def _filter(x: Tensor, f: Tensor, up: int, down: int, padding: tuple[int, int, int, int]) -> Tensor:
    """upfirdn2d with f [n,n], or with f [n] along one axis and then the other."""
    if f.ndim == 2:
        return upfirdn2d(x, f, up=up, down=down, padding=padding, gain=float(up**2))
    left, right, top, bottom = padding
    x = upfirdn2d(x, f[:, None], (up, 1), (down, 1), (0, 0, top, bottom), gain=float(up))
    return upfirdn2d(x, f[None], (1, up), (1, down), (left, right, 0, 0), gain=float(up))


def filtered_lrelu(
    x: Tensor,
    bias: Tensor,
    *,
    up_filter: Tensor | None,
    down_filter: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int],
    gain: float,
    slope: float,
    clamp: float | None,
) -> Tensor:
    """Bias, then leaky ReLU between an upsampling and a downsampling.

    Args:
        x: [B,C,H,W].
        bias: [C]; cast to the type of x.
        up_filter: f_u, [n] or [n,n]; None where up is 1.
        down_filter: f_d, [n] or [n,n]; None where down is 1.
        up: factor.
        down: factor.
        padding: (before, after) px of the upsampled map, for both axes; negative values crop.
        gain: factor after the activation.
        slope: of the negative side; 1 for no activation.
        clamp: largest magnitude after the gain, None for no clamp.

    Returns:
        [B,C,H',W'], H' = (H*up + padding - (n_u - 1) - (n_d - 1) - 1)//down + 1.
    """
    edges = (*padding, *padding)
    x = x + bias.to(x.dtype)[:, None, None]
    x = F.pad(x, edges) if up_filter is None else _filter(x, up_filter, up, 1, edges)
    x = F.leaky_relu(x, slope) * gain
    if clamp is not None:
        x = F.hardtanh(x, -clamp, clamp, inplace=True)  # as clamp, in one pass each way
    return x if down_filter is None else _filter(x, down_filter, 1, down, (0, 0, 0, 0))
