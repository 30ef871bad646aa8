"""BDInvert's base-code encoder: a downscaled image -> the feature map f that G's coarse half makes.

Source: Kang et al., "GAN Inversion for Out-of-Range Images with Geometric Transformations", arXiv
2108.08998. The state dict has exactly the keys of kkang831/BDInvert_Release.

    x [B,3,8s,8s] in [-1,1], the image scaled to 8 px a cell     f [B,C,s,s], not activated

Fully convolutional: at every one of the sides 8s, 4s, 2s three 3x3 convolutions, then the mean
over 2x2 px; two more at s. Moving x by 8 px moves f by one cell, which is what lets f carry an
image's geometry.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain

HALVINGS = 3  # an input of 8s px, whatever the resolution of G


class BaseCodeEncoder(nn.Module):
    """x [B,C0,8s,8s] -> f [B,C,s,s].

    Args:
        side: s, side of f in cells; the generator must have a block of s px.
        channels: C, channels of that block.
        input_nc: C0, channels of the image.
        channel_base: channels of the first three convolutions, doubled at each halving.
        channel_max: their upper bound.
    """

    def __init__(
        self, *, side: int, channels: int, input_nc: int, channel_base: int, channel_max: int
    ) -> None:
        super().__init__()
        self.side, self.channels = side, channels
        self.input_size = (side * 2**HALVINGS, side * 2**HALVINGS)
        layers: list[nn.Module] = []
        width = input_nc
        for i in range(HALVINGS):
            wider = min(channel_base * 2**i, channel_max)
            for _ in range(3):
                layers += [*_convolution(width, wider)]
                width = wider
            layers.append(nn.AvgPool2d(2))
        layers += [*_convolution(width, channels), nn.Conv2d(channels, channels, 3, padding=1)]
        self.model = nn.Sequential(*layers)
        for module in self.model:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C0,8s,8s] in [-1,1] -> f [B,C,s,s].

        Raises:
            ValueError: an image of another size.
        """
        if tuple(image.shape[-2:]) != self.input_size:
            raise ValueError(
                f"image of {tuple(image.shape[-2:])} px; expected {self.input_size} px: 8 px for "
                f"each of the {self.side} x {self.side} cells of f"
            )
        f: Tensor = self.model(image)
        return f


def scaled(image: Tensor, side: int) -> Tensor:
    """[B,3,R,R] -> [B,3,side,side] in [-1,1], bicubic with antialiasing: what an encoder that reads
    `side` px is given."""
    if image.shape[-1] == side:
        return image
    size = (side, side)
    return F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)


def check_maps(encoder: nn.Module, synthesis: Any, fix: str) -> None:
    """Refuse an encoder that makes no f, or one that has no place in G.

    Args:
        encoder: the one that makes f.
        synthesis: of G.
        fix: what to do about it.

    Raises:
        ConfigError: an encoder of wp; f is no map of a block of at least 8 px; a StyleGAN3, which
            has no blocks.
    """
    if not isinstance(encoder, BaseCodeEncoder):
        raise ConfigError(
            explain(f"the encoder {type(encoder).__name__} for a base code",
                    "BaseCodeEncoder, whose result is f", fix)
        )  # fmt: skip
    blocks = getattr(synthesis, "block_sizes", [])[1:]
    maps = {side: synthesis.channels[side] for side in blocks}
    if maps.get(encoder.side) != encoder.channels:
        raise ConfigError(
            explain(f"a base code of {encoder.channels} x {encoder.side} x {encoder.side}",
                    f"maps that the generator has: {maps} (side: channels)", fix)
        )  # fmt: skip


def _convolution(ci: int, co: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(ci, co, 3, padding=1), nn.BatchNorm2d(co), nn.LeakyReLU(0.2)
