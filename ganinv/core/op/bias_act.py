"""Bias, noise, leaky ReLU (or none), gain, clamp: the pointwise tail of every StyleGAN layer.

Source: Karras et al., arXiv 1912.04958 (slope 0.2, gain sqrt 2); the clamp is StyleGAN2-ADA's
safeguard for half precision (Karras et al., arXiv 2006.06676, app. D.1).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["linear", "lrelu"]
GAIN: dict[str, float] = {"linear": 1.0, "lrelu": math.sqrt(2.0)}


def bias_act(
    x: Tensor, bias: Tensor | None, act: Activation = "linear", clamp: float | None = None
) -> Tensor:
    """x [B,C,...] + bias [C], activated, times the activation's gain, then clamped to +-clamp.

    Args:
        x: [B,C] or [B,C,H,W].
        bias: [C] or None; cast to the type of x.
        act: "linear" (gain 1) or "lrelu" (slope 0.2, gain sqrt 2).
        clamp: largest magnitude of the result, None for no clamp. NVIDIA's layers clamp after the
            gain: an activation of 300 * sqrt 2 leaves a clamp of 256 as 256.
    """
    if bias is not None:
        x = x + bias.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    if act == "lrelu":
        x = F.leaky_relu(x, 0.2)
    gain = GAIN[act]
    if gain != 1.0:
        x = x * gain
    if clamp is not None:
        x = F.hardtanh(x, -clamp, clamp, inplace=gain != 1.0)  # see Scaled.clamped
    return x


def noisy_lrelu(y: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor) -> Tensor:
    """lrelu(y + bias + strength * noise), slope 0.2, in two passes over y: what is added is a
    matrix [C,2] times one [2,H*W], in whichever order y lies in memory.

    Args:
        y: [B,C,H,W].
        bias: [B,C].
        noise: [H,W] or [B,1,H,W], or None for none.
        strength: [B,C], of the noise.

    Returns:
        [B,C,H,W] of the type and memory layout of y.
    """
    if noise is None:
        return F.leaky_relu_(y + bias.to(y.dtype)[..., None, None], 0.2)
    batch, _, *size = y.shape
    noise = noise.expand(batch, 1, *size).to(y.dtype)
    maps = torch.cat([torch.ones_like(noise), noise], 1).flatten(2)  # [B,2,H*W]
    factors = torch.stack([bias, strength], -1).to(y.dtype)  # [B,C,2]
    if y.stride(1) == 1:  # channels last
        rows = y.permute(0, 2, 3, 1).flatten(1, 2)
        sums = torch.baddbmm(rows, maps.transpose(1, 2), factors.transpose(1, 2))
        return F.leaky_relu_(sums, 0.2).unflatten(1, size).permute(0, 3, 1, 2)
    return F.leaky_relu_(torch.baddbmm(y.flatten(2), factors, maps), 0.2).unflatten(2, size)


def mix_channels(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution with a kernel an image, which is one product of matrices an image.

    Args:
        x: [B,C,H,W].
        weight: [B,K,C], of the type of x.

    Returns:
        [B,K,H,W] in the memory layout of x.
    """
    if x.stride(1) == 1:  # channels last
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        mixed = torch.bmm(rows, weight.transpose(1, 2))
        return mixed.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return torch.bmm(weight, x.flatten(2)).unflatten(2, x.shape[2:])
