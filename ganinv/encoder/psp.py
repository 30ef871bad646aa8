"""pSp's encoders: a feature pyramid with one map-to-style head for each style input, and the two
simpler encoders it is compared with.

Source: Richardson et al., "Encoding in Style", arXiv 2008.00951, sec. 3 and table 3. The state
dicts have exactly the keys of eladrich/pixel2style2pixel.

    image [B,C,H,W] in [-1,1]    c1, p1 [B,*,H/4,W/4]  c2, p2 [B,*,H/8,W/8]  c3 [B,*,H/16,W/16]
    wp [B,L,D] offsets from w_avg; whoever calls the encoder adds w_avg

Differs from the released code in: an image size that the heads cannot fold is refused; the W
encoder repeats its code for all L inputs; L, D and the trunk are free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.backbone.irse import Trunk, plan_of
from ganinv.core.latent import repeat_w
from ganinv.core.op import Dense

MIDDLE, FINE = 3, 7  # first style inputs that read p2 and p1; coarser ones read c3 (sec. 3)


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """256 -> (256, 256); [192, 256] -> (192, 256)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


class MapToStyle(nn.Module):
    """A feature map [B,C,h,w] of at most `side` px -> one code [B,D], halving until it is 1x1."""

    def __init__(self, channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(int(math.log2(side))):
            layers += [nn.Conv2d(channels if i == 0 else w_dim, w_dim, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = Dense(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,D]."""
        return codes_of([self], x)[0]


def codes_of(heads: Sequence[Any], x: Tensor) -> list[Tensor]:
    """The codes [B,D] of heads of one shape. Their first convolutions are one, so that it reads the
    large map x [B,C,h,w] once, and its gradient is written once."""
    conv, act = heads[0].convs[:2]
    weight, bias = (torch.cat([getattr(h.convs[0], k) for h in heads]) for k in ("weight", "bias"))
    y = act(F.conv2d(x, weight, bias, conv.stride, conv.padding)).chunk(len(heads), 1)
    return [h.linear(h.convs[2:](part).flatten(1)) for h, part in zip(heads, y, strict=True)]


class PyramidEncoder(Trunk):
    """The trunk, the feature pyramid and the L heads that pSp and e4e share.

    Args:
        num_ws: L, style inputs of the generator.
        w_dim: D.
        input_size: side or (height, width) of the image in px.
        input_nc: channels C of the image.
        trunk: "ir_se50" or "ir_se_small".

    Raises:
        ConfigError: an unknown trunk, or an image size it does not admit.
    """

    def __init__(
        self,
        *,
        num_ws: int,
        w_dim: int,
        input_size: int | Sequence[int],
        input_nc: int,
        trunk: str,
    ) -> None:
        size = height_width(input_size)
        plan = plan_of(trunk, size)
        super().__init__(plan, input_nc)
        self.input_size, self.num_ws = size, num_ws
        c1, c2, c3 = plan.widths
        side = max(size) // 16
        self.styles = nn.ModuleList(
            MapToStyle(c3, w_dim, side * (1 if i < MIDDLE else 2 if i < FINE else 4))
            for i in range(num_ws)
        )
        self.latlayer1 = nn.Conv2d(c2, c3, 1)
        self.latlayer2 = nn.Conv2d(c1, c3, 1)

    def pyramid(self, image: Tensor, count: int) -> list[Tensor]:
        """The maps that the first `count` heads read: [c3], [c3, p2] or [c3, p2, p1]."""
        c1, c2, c3 = self.taps(image)
        maps = [c3]
        if count > MIDDLE:
            maps.append(_add_upsampled(c3, self.latlayer1(c2)))
        if count > FINE:
            maps.append(_add_upsampled(maps[-1], self.latlayer2(c1)))
        return maps

    def codes(self, image: Tensor, count: int) -> Tensor:
        """The outputs of the first `count` heads, [B,count,D]."""
        maps, heads = self.pyramid(image, count), list(self.styles)[:count]
        readers = (heads[:MIDDLE], heads[MIDDLE:FINE], heads[FINE:])
        codes = [c for x, some in zip(maps, readers, strict=False) for c in codes_of(some, x)]
        return torch.stack(codes, dim=1)


def _add_upsampled(coarse: Tensor, fine: Tensor) -> Tensor:
    size = fine.shape[-2:]
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=True) + fine


class GradualStyleEncoder(PyramidEncoder):
    """pSp: every head gives the code of one layer."""

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1,1] -> offsets [B,L,D]."""
        return self.codes(image, self.num_ws)


class WEncoder(Trunk):
    """One code for all style inputs ("W encoder"): the pooled trunk and one linear layer.

    Arguments and errors as `PyramidEncoder`.
    """

    def __init__(
        self,
        *,
        num_ws: int,
        w_dim: int,
        input_size: int | Sequence[int],
        input_nc: int,
        trunk: str,
    ) -> None:
        size = height_width(input_size)
        plan = plan_of(trunk, size)
        super().__init__(plan, input_nc)
        self.input_size, self.num_ws = size, num_ws
        self.linear = Dense(plan.widths[2], w_dim)

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1,1] -> offsets [B,L,D], the same for all L layers."""
        return repeat_w(self.linear(self.taps(image)[2].mean((2, 3))), self.num_ws)


class WPlusEncoder(Trunk):
    """The naive W+ encoder: the trunk's last map, pooled and flattened, gives all L codes at once.

    Arguments and errors as `PyramidEncoder`.
    """

    def __init__(
        self,
        *,
        num_ws: int,
        w_dim: int,
        input_size: int | Sequence[int],
        input_nc: int,
        trunk: str,
    ) -> None:
        size = height_width(input_size)
        plan = plan_of(trunk, size)
        super().__init__(plan, input_nc)
        self.input_size, self.num_ws = size, num_ws
        c3 = plan.widths[2]
        pooled = min(7, max(size) // 16)
        self.output_layer_2 = nn.Sequential(
            nn.BatchNorm2d(c3),
            nn.AdaptiveAvgPool2d((pooled, pooled)),
            nn.Flatten(),
            nn.Linear(c3 * pooled * pooled, c3),
        )
        self.linear = Dense(c3, w_dim * num_ws)

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1,1] -> offsets [B,L,D]."""
        flat: Tensor = self.linear(self.output_layer_2(self.taps(image)[2]))
        return flat.reshape(len(flat), self.num_ws, -1)
