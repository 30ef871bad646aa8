"""The StyleGAN2 discriminator (residual architecture), conditional or not.

Source: Karras et al., arXiv 1912.04958 and 2006.06676; projection of labels after Miyato & Koyama,
arXiv 1802.05637. The state dict has the keys and shapes of NVIDIA's `.pkl` files.

    x [B,3,R,R] in [-1,1]    c [B,K] one-hot labels    score [B,1], higher = more real

Differs from the released code in: no fp16 switch per block (run it under autocast instead).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.op import Dense, bias_act, conv2d_resample, full, setup_filter
from ganinv.core.op.bias_act import GAIN, Activation


def _normalize(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Conv2d(nn.Module):
    """Equalised convolution: (2x FIR downsampling,) bias, activation, clamp, times `gain`."""

    resample_filter: Tensor

    def __init__(
        self,
        ci: int,
        co: int,
        k: int,
        *,
        act: Activation = "lrelu",
        down: int = 1,
        bias: bool = True,
        clamp: float | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.act: Activation = act
        self.down, self.clamp, self.gain = down, clamp, gain
        self.weight = nn.Parameter(torch.randn(co, ci, k, k))
        self.weight_gain = 1 / math.sqrt(ci * k * k)
        self.bias = nn.Parameter(torch.zeros(co)) if bias else None
        self.register_buffer("resample_filter", setup_filter())

    def forward(self, x: Tensor) -> Tensor:
        """[B,Ci,h,h] -> [B,Co,h/down,h/down]. What a clamp does not come between, the gains, are
        factors of the small weight and bias: leaky ReLU lets them through."""
        gain = self.gain * GAIN[self.act] if self.clamp is None else 1.0
        weight = self.weight * (self.weight_gain * gain)
        bias = None if self.bias is None else (self.bias * gain).to(x.dtype)
        x = conv2d_resample(x, weight, self.resample_filter, down=self.down, bias=bias)
        if self.clamp is None:
            return F.leaky_relu_(x, 0.2) if self.act == "lrelu" else x
        x = bias_act(x, None, self.act, clamp=self.clamp)
        return x * self.gain if self.gain != 1.0 else x


class DiscriminatorBlock(nn.Module):
    """[B,Ci,r,r] -> [B,Co,r/2,r/2]: two convolutions beside a 1x1 shortcut, summed over sqrt 2."""

    resample_filter: Tensor

    def __init__(self, ci: int, co: int, *, img_channels: int | None, clamp: float | None) -> None:
        super().__init__()
        self.register_buffer("resample_filter", setup_filter())
        if img_channels is not None:
            self.fromrgb = Conv2d(img_channels, ci, 1, clamp=clamp)
        self.from_image = img_channels is not None
        # NVIDIA's layer multiplies gain and clamp by `gain` alike: clamped first, as here
        self.conv0 = Conv2d(ci, ci, 3, clamp=clamp)
        self.conv1 = Conv2d(ci, co, 3, down=2, clamp=clamp, gain=math.sqrt(0.5))
        self.skip = Conv2d(ci, co, 1, act="linear", down=2, bias=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """One block; the first reads the image."""
        if self.from_image:
            x = self.fromrgb(x)
        return self.skip(x) + self.conv1(self.conv0(x))


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """Append one channel to x [B,C,h,w]: the mean standard deviation over groups of the batch.

    The batch must divide into groups; a smaller batch is one group.
    """
    b, c, h, w = x.shape
    group = min(group_size, b)
    if b % group:
        raise ValueError(f"batch of {b}; expected a multiple of mbstd_group_size={group}")
    y = full(x).reshape(group, -1, c, h, w)  # [g,B/g,C,h,w]
    y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # [B/g]
    y = y.reshape(-1, 1, 1, 1).repeat(group, 1, h, w)
    return torch.cat([x, y.to(x.dtype)], dim=1)


class DiscriminatorEpilogue(nn.Module):
    """[B,C,4,4] -> [B,out]: minibatch standard deviation, convolution, two dense layers."""

    def __init__(
        self, channels: int, *, out: int, mbstd_group_size: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.group_size = mbstd_group_size
        self.conv = Conv2d(channels + 1, channels, 3, clamp=clamp)
        self.fc = Dense(channels * 16, channels, "lrelu")
        self.out = Dense(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """Scores or, in a conditional network, an embedding."""
        x = self.conv(minibatch_std(x, self.group_size))
        return self.out(self.fc(x.flatten(1)))


class StyleGAN2Discriminator(nn.Module):
    """x [B,3,R,R] (and c [B,K]) -> score [B,1].

    Args:
        c_dim: number of classes, 0 when unconditional.
        resolution: R in px.
        img_channels: 3 for RGB.
        channel_base: the block at R has min(channel_base / R, channel_max) channels.
        channel_max: the most of any block; also the width of the label embedding's projection.
        conv_clamp: largest magnitude of an activation, after its gain; None for no clamp.
        mbstd_group_size: images over which the minibatch standard deviation is taken.
    """

    def __init__(
        self,
        *,
        c_dim: int,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        conv_clamp: float | None,
        mbstd_group_size: int,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "c_dim": c_dim,
            "resolution": resolution,
            "img_channels": img_channels,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "conv_clamp": conv_clamp,
            "mbstd_group_size": mbstd_group_size,
        }
        self.resolution, self.c_dim = resolution, c_dim
        self.block_sizes = [2**i for i in range(int(math.log2(resolution)), 2, -1)]
        channels = {r: min(channel_base // r, channel_max) for r in [*self.block_sizes, 4]}
        for r in self.block_sizes:
            image = img_channels if r == resolution else None
            block = DiscriminatorBlock(
                channels[r], channels[r // 2], img_channels=image, clamp=conv_clamp
            )
            setattr(self, f"b{r}", block)
        self.cmap_dim = channels[4] if c_dim > 0 else 0
        if c_dim > 0:
            self.mapping = LabelMapping(c_dim, self.cmap_dim)
        self.b4 = DiscriminatorEpilogue(
            channels[4],
            out=self.cmap_dim or 1,
            mbstd_group_size=mbstd_group_size,
            clamp=conv_clamp,
        )

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Score in float32.

        Raises:
            ValueError: x is not R x R px, or a conditional network was given no label.
        """
        if x.shape[-2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"image of {tuple(x.shape[-2:])} px; expected {self.resolution} x {self.resolution}"
            )
        for r in self.block_sizes:
            x = getattr(self, f"b{r}")(x)
        x = self.b4(x)
        if self.c_dim > 0:
            if c is None:
                raise ValueError(f"no label given; expected c [B,{self.c_dim}], one-hot")
            x = (x * self.mapping(c)).sum(1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


class LabelMapping(nn.Module):
    """c [B,K] -> unit-variance embedding through eight dense layers, [B,out]."""

    def __init__(self, c_dim: int, out: int, num_layers: int = 8, lr_mul: float = 0.01) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.embed = Dense(c_dim, out)
        for i in range(num_layers):
            setattr(self, f"fc{i}", Dense(out, out, "lrelu", lr_mul))

    def forward(self, c: Tensor) -> Tensor:
        """One embedding a label."""
        x = _normalize(self.embed(c))
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x
