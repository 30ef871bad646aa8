"""StyleGAN's operators in plain PyTorch: no compiler, any device, differentiable twice."""

from ganinv.core.op.bias_act import bias_act
from ganinv.core.op.dense import Dense, full
from ganinv.core.op.modulated_conv import modulated_conv2d
from ganinv.core.op.resample import conv2d_resample, downsample2d, setup_filter, upsample2d
from ganinv.core.op.upfirdn2d import upfirdn2d

__all__ = [
    "Dense",
    "bias_act",
    "conv2d_resample",
    "downsample2d",
    "full",
    "modulated_conv2d",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
