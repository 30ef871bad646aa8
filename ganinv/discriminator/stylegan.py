"""The StyleGAN (v1) discriminator.

Source: Karras et al., arXiv 1812.04948 and, for its shape, "Progressive Growing of GANs", arXiv
1710.10196. `ganinv/generator/importer/genforce.py` maps the published layout.

    x [B,3,R,R] in [-1,1]    score [B,1], higher = more real

    block b{r}:  x -> conv -> lrelu -> blur -> conv, down -> lrelu       from r to r/2 px
    block b4:    x -> minibatch std -> conv -> lrelu -> fc -> lrelu -> out

Only the first resolution reads the image. The from-RGB convolutions of the coarser ones, left over
from progressive growing, are carried along (as buffers) so that a file goes out as it came in.

Differs from the released code in: the network is fully grown (lod 0) and has no labels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.op import Dense, setup_filter, upfirdn2d
from ganinv.discriminator.stylegan2 import minibatch_std

FUSED_FROM = 128  # px: from here on, convolution and downsampling are one strided convolution


class Conv2d(nn.Module):
    """Equalised convolution (gain sqrt 2), halving if `down`, then bias and leaky ReLU.

    Args:
        ci: channels of x.
        co: channels of the result.
        k: side of the kernel.
        down: whether to blur and halve.
        fused: the form of the halving: one convolution of stride 2 with the mean of the four
            shifted kernels, or a convolution and the mean over 2 x 2 px.
        read: False for a layer that only holds its values.
    """

    weight: Tensor
    bias: Tensor
    blur: Tensor

    def __init__(
        self,
        ci: int,
        co: int,
        k: int,
        *,
        down: bool = False,
        fused: bool = False,
        read: bool = True,
    ) -> None:
        super().__init__()
        self.down, self.fused = down, fused
        for name, value in (("weight", torch.randn(co, ci, k, k)), ("bias", torch.zeros(co))):
            if read:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.weight_gain = math.sqrt(2 / (ci * k * k))
        self.register_buffer("blur", setup_filter((1, 2, 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B,Ci,h,h] -> [B,Co,h,h], or half of it."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        if self.down:
            x = upfirdn2d(x, self.blur, padding=(1, 1, 1, 1))
        if self.down and self.fused:
            corners = F.pad(weight, (1, 1, 1, 1))
            four = corners[..., 1:, 1:] + corners[..., :-1, 1:]
            four = four + corners[..., 1:, :-1] + corners[..., :-1, :-1]
            x = F.conv2d(x, four / 4, stride=2, padding=1)
        else:
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
            x = F.avg_pool2d(x, 2) if self.down else x
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], 0.2)


class DiscriminatorBlock(nn.Module):
    """[B,Ci,r,r] -> [B,Co,r/2,r/2]."""

    def __init__(
        self, ci: int, co: int, *, resolution: int, img_channels: int, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        self.fromrgb = Conv2d(img_channels, ci, 1, read=first)
        self.layer0 = Conv2d(ci, ci, 3)
        self.layer1 = Conv2d(ci, co, 3, down=True, fused=resolution >= FUSED_FROM)

    def forward(self, x: Tensor) -> Tensor:
        """One block; the first reads the image."""
        if self.first:
            x = self.fromrgb(x)
        y: Tensor = self.layer1(self.layer0(x))
        return y


class DiscriminatorEpilogue(nn.Module):
    """[B,C,4,4] -> score [B,1]."""

    def __init__(self, channels: int, *, img_channels: int, mbstd_group_size: int) -> None:
        super().__init__()
        self.group_size = mbstd_group_size
        self.fromrgb = Conv2d(img_channels, channels, 1, read=False)
        self.conv = Conv2d(channels + 1, channels, 3)
        self.fc = Dense(channels * 16, channels, gain=math.sqrt(2))
        self.out = Dense(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The score, in float32."""
        x = self.conv(minibatch_std(x, self.group_size))
        score: Tensor = self.out(F.leaky_relu(self.fc(x.flatten(1)), 0.2))
        return score


class StyleGANDiscriminator(nn.Module):
    """x [B,3,R,R] -> score [B,1].

    Args:
        resolution: R in px, a power of two of at least 8.
        img_channels: 3 for RGB.
        channel_base: the block at R has min(channel_base / R, channel_max) channels.
        channel_max: the most channels of any block.
        mbstd_group_size: images over which the minibatch standard deviation is taken.
    """

    def __init__(
        self,
        *,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        mbstd_group_size: int,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "resolution": resolution,
            "img_channels": img_channels,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "mbstd_group_size": mbstd_group_size,
        }
        self.resolution = resolution
        self.block_sizes = [2**i for i in range(int(math.log2(resolution)), 2, -1)]
        channels = {r: min(channel_base // r, channel_max) for r in [*self.block_sizes, 4]}
        for r in self.block_sizes:
            block = DiscriminatorBlock(
                channels[r],
                channels[r // 2],
                resolution=r,
                img_channels=img_channels,
                first=r == resolution,
            )
            setattr(self, f"b{r}", block)
        self.b4 = DiscriminatorEpilogue(
            channels[4], img_channels=img_channels, mbstd_group_size=mbstd_group_size
        )

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Score in float32. There are no labels: c must be None.

        Raises:
            ValueError: x is not R x R px, or a label was given.
        """
        if x.shape[-2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"image of {tuple(x.shape[-2:])} px; expected {self.resolution} x {self.resolution}"
            )
        if c is not None:
            raise ValueError("a label was given; expected none: this discriminator has no classes")
        for r in self.block_sizes:
            x = getattr(self, f"b{r}")(x)
        return self.b4(x)
