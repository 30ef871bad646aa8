"""The equalised-learning-rate linear layer shared by StyleGAN's networks.

Source: Karras et al., "Progressive Growing of GANs", arXiv 1710.10196, sec. 4.1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.op.bias_act import Activation, bias_act


def full(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is that: where half precision is not enough."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Dense(nn.Module):
    """x [B,in] -> act(x @ (W * gain * lr_mul / sqrt(in)) + b * lr_mul) [B,out], never in half
    precision.

    Args:
        in_features: width of x.
        out_features: width of the result.
        act: "linear" or "lrelu".
        lr_mul: the layer's learning rate, as a factor of the optimizer's.
        bias_init: initial value of the effective bias.
        gain: factor of the weight alone; StyleGAN (v1) has sqrt 2 here, not in its activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        act: Activation = "linear",
        lr_mul: float = 1.0,
        bias_init: float = 0.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.act: Activation = act
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_mul))
        self.weight_gain = gain * lr_mul / math.sqrt(in_features)
        self.bias_gain = lr_mul

    def forward(self, x: Tensor) -> Tensor:
        """[B,in] -> [B,out]."""
        with torch.autocast(x.device.type, enabled=False):
            y = F.linear(full(x), self.weight * self.weight_gain)
            return bias_act(y, self.bias * self.bias_gain, self.act)
