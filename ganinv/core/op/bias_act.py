"""Bias, leaky ReLU (or none), gain, clamp: the pointwise tail of every StyleGAN layer.

Source: Karras et al., arXiv 1912.04958 (slope 0.2, gain sqrt 2); the clamp is StyleGAN2-ADA's
safeguard for half precision (Karras et al., arXiv 2006.06676, app. D.1).
"""

from __future__ import annotations

import math
from typing import Literal

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
        x = x.clamp(-clamp, clamp)
    return x
