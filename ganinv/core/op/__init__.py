"""StyleGAN's operators in plain PyTorch: no compiler, any device, differentiable twice."""

from ganinv.core.op.bias_act import bias_act, mix_channels, noisy_lrelu
from ganinv.core.op.dense import Dense, full
from ganinv.core.op.modulated_conv import Scaled, modulated_conv2d, modulated_layer
from ganinv.core.op.resample import conv2d_resample, downsample2d, setup_filter, upsample2d
from ganinv.core.op.upfirdn2d import upfirdn2d

__all__ = [
    "Dense",
    "Scaled",
    "bias_act",
    "conv2d_resample",
    "downsample2d",
    "full",
    "mix_channels",
    "modulated_conv2d",
    "modulated_layer",
    "noisy_lrelu",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
