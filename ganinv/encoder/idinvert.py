"""IDInvert's domain-guided encoders, the one published first and the one of the later code.

Source: Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv 2004.00049.

    x  [B,3,R,R] in [-1,1]     wp [B,L,D], absolute: no w_avg is added

                   DomainGuidedEncoder (April 2020)     DomainGuidedEncoder5x5 (September 2020)
    stem           3x3, norm, lrelu                     5x5 + bias, lrelu, norm
    a convolution  3x3 + bias, norm, lrelu              3x3 + bias, lrelu, norm
    shortcut       1x1, norm, lrelu                     1x1, norm
    at 4x4 px      dense without bias, norm             dense + bias, norm
    norm           bias only, its scale stays 1         scale and bias
    channels       64 ... 1024                          64 ... 512

Both halve the map by averaging ahead of each residual block, from R to 4 px, and end in a batch
normalisation of the code. All published weights are of the first one; its state dict has exactly
the keys of the `*_encoder.pth` files of genforce/idinvert_pytorch. Of the second one only
TensorFlow code was published.

Differs from the released code in: L and D are free; weights start as N(0, 0.02) in both, as the
later code has it (in the first one's dense layer N(0, 1), which its 1/sqrt(fan-in) scales); the
running variance is torch's unbiased one; batch statistics are those of one process unless
`trainer.sync_batchnorm` is set.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain
from ganinv.encoder.psp import height_width


def _lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _norm(channels: int) -> nn.Sequential:
    """Batch normalisation with a trainable bias only; the scale is a buffer of ones."""
    norm = nn.BatchNorm2d(channels)
    del norm.weight
    norm.register_buffer("weight", torch.ones(channels))
    return nn.Sequential(OrderedDict(bn=norm))


def _channels(resolution: int, base: int, most: int) -> list[int]:
    """Channels at R, R/2, ..., 4 px: doubled at each halving, up to `most`."""
    return [min(base * 2**i, most) for i in range(int(math.log2(resolution)) - 1)]


def _side(input_size: int | Sequence[int]) -> int:
    height, width = height_width(input_size)
    if height != width or height < 8 or height & (height - 1):
        raise ConfigError(
            explain(
                f"images of {height}x{width} px (height x width) for IDInvert's encoder",
                "squares whose side is a power of two, at least 8",
                "resize the images (dataset.image_size)",
            )
        )
    return height


def _check(x: Tensor, size: tuple[int, int]) -> None:
    if tuple(x.shape[-2:]) != size:
        raise ValueError(f"image of {tuple(x.shape[-2:])} px; expected {size[0]} x {size[1]}")


def _start(norm: nn.BatchNorm2d, mean: Tensor, scale: Tensor) -> None:
    """Give the output of a normalisation this mean and standard deviation [L,D]."""
    with torch.no_grad():
        norm.bias.copy_(mean.flatten())
        norm.weight.copy_(scale.flatten())


def _normal(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# ------------------------------------------------------------------ April 2020


class Bias(nn.Module):
    """x [B,C,h,w] + bias [C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.bias.to(x.dtype)[:, None, None]


class Stem(nn.Module):
    """[B,3,R,R] -> [B,C,R,R]."""

    def __init__(self, ci: int, co: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ci, co, 3, padding=1, bias=False)
        self.bn = _norm(co)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, activate."""
        return _lrelu(self.bn(self.conv(x)))


class ResidualBlock(nn.Module):
    """[B,Ci,h,h] -> [B,Co,h,h]; the shortcut of a block that widens is activated too."""

    def __init__(self, ci: int, co: int) -> None:
        super().__init__()
        hidden, self.widens = min(ci, co), ci != co
        if self.widens:
            self.conv = nn.Conv2d(ci, co, 1, bias=False)
            self.bn = _norm(co)
        self.conv1 = nn.Conv2d(ci, hidden, 3, padding=1, bias=False)
        self.wscale1 = Bias(hidden)
        self.bn1 = _norm(hidden)
        self.conv2 = nn.Conv2d(hidden, co, 3, padding=1, bias=False)
        self.wscale2 = Bias(co)
        self.bn2 = _norm(co)

    def forward(self, x: Tensor) -> Tensor:
        """Main path plus shortcut; nothing follows the sum."""
        y = _lrelu(self.bn1(self.wscale1(self.conv1(x))))
        y = _lrelu(self.bn2(self.wscale2(self.conv2(y))))
        return y + (_lrelu(self.bn(self.conv(x))) if self.widens else x)


class Code(nn.Module):
    """[B,C,4,4] -> [B,out]: a dense layer times 1/sqrt(fan-in), normalised over the batch."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, out, bias=False)
        self.bn = _norm(out)
        self.gain = 1 / math.sqrt(features)

    def forward(self, x: Tensor) -> Tensor:
        """Flatten, map, normalise."""
        code: Tensor = self.bn((self.fc(x.flatten(1)) * self.gain)[:, :, None, None])
        return code.flatten(1)


class DomainGuidedEncoder(nn.Module):
    """The encoder of the released weights.

    Args:
        num_ws: L, style inputs of the generator.
        w_dim: D.
        input_size: side of the image in px, or two equal ones; a power of two of at least 8.
        input_nc: channels of the image.
        channel_base: channels at full resolution, doubled at each halving.
        channel_max: the most that doubling leads to.

    Raises:
        ConfigError: another image size.
    """

    def __init__(
        self,
        *,
        num_ws: int,
        w_dim: int,
        input_size: int | Sequence[int],
        input_nc: int,
        channel_base: int,
        channel_max: int,
    ) -> None:
        super().__init__()
        side = _side(input_size)
        self.input_size, self.num_ws = (side, side), num_ws
        channels = _channels(side, channel_base, channel_max)
        self.last = len(channels)
        self.block0 = Stem(input_nc, channels[0])
        for i in range(1, self.last):
            setattr(self, f"block{i}", ResidualBlock(channels[i - 1], channels[i]))
        setattr(self, f"block{self.last}", Code(channels[-1] * 16, num_ws * w_dim))
        _normal(self)
        nn.init.normal_(getattr(self, f"block{self.last}").fc.weight)

    def start_codes(self, mean: Tensor, scale: Tensor) -> None:
        """Give the untrained encoder's codes this mean and standard deviation [L,D]; the scale is
        a buffer and is not trained."""
        _start(getattr(self, f"block{self.last}").bn.bn, mean, scale)

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C,R,R] in [-1,1] -> wp [B,L,D].

        Raises:
            ValueError: an image of another size.
        """
        _check(image, self.input_size)
        x: Tensor = self.block0(image)
        for i in range(1, self.last):
            x = getattr(self, f"block{i}")(F.avg_pool2d(x, 2))
        code: Tensor = getattr(self, f"block{self.last}")(x)
        return code.unflatten(1, (self.num_ws, -1))


# ------------------------------------------------------------------ September 2020


class Convolution(nn.Module):
    """k x k convolution + bias, leaky ReLU, batch normalisation, in this order."""

    def __init__(self, ci: int, co: int, k: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ci, co, k, padding=k // 2)
        self.norm = nn.BatchNorm2d(co)

    def forward(self, x: Tensor) -> Tensor:
        """[B,Ci,h,h] -> [B,Co,h,h]."""
        y: Tensor = self.norm(_lrelu(self.conv(x)))
        return y


class ResidualBlock5x5(nn.Module):
    """[B,Ci,h,h] -> [B,Co,h,h]; the shortcut of a block that widens is linear."""

    def __init__(self, ci: int, co: int) -> None:
        super().__init__()
        hidden = min(ci, co)
        self.conv0 = Convolution(ci, hidden, 3)
        self.conv1 = Convolution(hidden, co, 3)
        self.shortcut: nn.Module = nn.Identity()
        if ci != co:
            conv = nn.Conv2d(ci, co, 1, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(co)))

    def forward(self, x: Tensor) -> Tensor:
        """Main path plus shortcut."""
        y: Tensor = self.conv1(self.conv0(x)) + self.shortcut(x)
        return y


class DomainGuidedEncoder5x5(nn.Module):
    """The encoder of the later training code. Arguments and errors as `DomainGuidedEncoder`."""

    def __init__(
        self,
        *,
        num_ws: int,
        w_dim: int,
        input_size: int | Sequence[int],
        input_nc: int,
        channel_base: int,
        channel_max: int,
    ) -> None:
        super().__init__()
        side = _side(input_size)
        self.input_size, self.num_ws = (side, side), num_ws
        channels = _channels(side, channel_base, channel_max)
        self.stem = Convolution(input_nc, channels[0], 5)
        pairs = zip(channels, channels[1:], strict=False)
        self.blocks = nn.ModuleList(ResidualBlock5x5(ci, co) for ci, co in pairs)
        self.dense = nn.Linear(channels[-1] * 16, num_ws * w_dim)
        self.norm = nn.BatchNorm2d(num_ws * w_dim)
        _normal(self)

    def start_codes(self, mean: Tensor, scale: Tensor) -> None:
        """Give the codes of the untrained encoder this mean and standard deviation [L,D]; training
        changes both."""
        _start(self.norm, mean, scale)

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C,R,R] in [-1,1] -> wp [B,L,D].

        Raises:
            ValueError: an image of another size.
        """
        _check(image, self.input_size)
        x: Tensor = self.stem(image)
        for block in self.blocks:
            x = block(F.avg_pool2d(x, 2))
        code: Tensor = self.norm(self.dense(x.flatten(1))[:, :, None, None])
        return code.flatten(1).unflatten(1, (self.num_ws, -1))
