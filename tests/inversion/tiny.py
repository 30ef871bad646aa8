"""A tiny model of each generator family in float64, where batches of one and of four agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.interface import Target
from ganinv.core.seed import derive_seed
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator
from ganinv.inversion.model import Model
from ganinv.loss.perceptual import Perceptual
from ganinv.task.image import Image

SIZE, WIDTH = 16, 8
COMMON: dict[str, Any] = {
    "z_dim": WIDTH, "w_dim": WIDTH, "img_channels": 3, "mapping_layers": 2,
    "channel_base": 64, "channel_max": 4,
}  # fmt: skip


def common(size: int) -> dict[str, Any]:
    """Arguments of every family; at least one channel at the full size."""
    return COMMON | {"resolution": size, "channel_base": max(size, COMMON["channel_base"])}


FAMILIES: dict[str, Any] = {
    "stylegan": lambda size: StyleGANGenerator(
        layerwise=False, final_tanh=False, **common(size)
    ),
    "stylegan2": lambda size: StyleGAN2Generator(
        c_dim=0, conv_clamp=None, **common(size)
    ),
    "stylegan3": lambda size: StyleGAN3Generator(
        c_dim=0, num_layers=4, num_critical=2, margin_size=4, conv_kernel=3,
        use_radial_filters=False, conv_clamp=256.0, **common(size),
    ),
}  # fmt: skip


class Linear(nn.Module):
    """An encoder of one layer."""

    def __init__(self, num_ws: int, size: int) -> None:
        super().__init__()
        self.num_ws, self.input_size = num_ws, (size, size)
        self.layer = nn.Linear(3 * size * size, num_ws * WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image.flatten(1)).unflatten(1, (self.num_ws, WIDTH))


class Stages(nn.Module):
    """Two stages of one convolution each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2)
        self.calls = 0

    def stages(self, image: Tensor) -> list[Tensor]:
        self.calls += 1
        maps = [torch.tanh(self.first(image))]
        return [*maps, torch.tanh(self.second(maps[0]))]


@torch.no_grad()
def model(family: str = "stylegan2", dtype: torch.dtype = torch.float64, size: int = SIZE) -> Model:
    torch.manual_seed(1)
    generator = FAMILIES[family](size)
    for name, value in generator.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.2)
    generator.mapping.w_avg.copy_(generator.mapping(torch.randn(500, WIDTH)).mean(0))
    encoder = Linear(generator.num_ws, size)
    made = Model(encoder=encoder, generator=generator, task=Image(), start_from_w_avg=True)
    return made.to(dtype).freeze()


def perceptual(dtype: torch.dtype = torch.float64) -> Perceptual:
    torch.manual_seed(2)
    return Perceptual(weight=1.0, backbone=Stages()).to(dtype)


def critic(of: Model) -> StyleGAN2Discriminator:
    """A discriminator of the model's size."""
    torch.manual_seed(4)
    made = StyleGAN2Discriminator(
        c_dim=0, resolution=of.G.resolution, img_channels=3, channel_base=64, channel_max=4,
        conv_clamp=None, mbstd_group_size=2,
    )  # fmt: skip
    return made.to(of.G.w_avg.dtype)


@torch.no_grad()
def target(of: Model, keys: str = "abcd", mask: Tensor | None = None) -> Target:
    """Images that G can nearly make, one a letter; each a function of its letter."""
    rows = [torch.Generator().manual_seed(ord(key)) for key in keys]
    dtype = of.G.w_avg.dtype
    z = torch.stack([torch.randn(WIDTH, generator=row) for row in rows]).to(dtype)
    shape = (3, of.G.resolution, of.G.resolution)
    noise = torch.stack([torch.randn(shape, generator=row) for row in rows]).to(dtype)
    wp = of.G.mapping(z)[:, None].expand(-1, of.num_ws, -1)
    x = of.G.synthesis(wp) + 0.1 * noise
    seeds = [derive_seed("key", key) for key in keys]
    return Target(x=x, s=x, key=list(keys), seeds=seeds, mask=mask)
