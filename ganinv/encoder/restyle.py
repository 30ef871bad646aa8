"""ReStyle's encoders: the image beside its present reconstruction -> a step towards better codes.

Source: Alaluf et al., "ReStyle: A Residual-Based StyleGAN Encoder via Iterative Refinement", arXiv
2104.02699, sec. 3 and 4. The state dicts have exactly the keys of yuval-alaluf/restyle-encoder:

    ReStyleEncoder                  BackboneEncoder                     IR-SE, faces
    ReStyleEncoder4Editing          ProgressiveBackboneEncoder
    ReStyleResNetEncoder            ResNetBackboneEncoder               ResNet-34, anything
    ReStyleResNetEncoder4Editing    ResNetProgressiveBackboneEncoder

Those over pSp and over e4e are equal: only the name of the class tells the two apart.

    s [B,C,H,W] in [-1,1], y [B,3,H,W] the image of the codes so far
    wp_0 = w_avg,   y_0 = G(wp_0),   wp_t = wp_{t-1} + E(s, y_{t-1}),   y_t = G(wp_t)      [B,L,D]

The heads are those of pSp and e4e, but all of them read the last map of the trunk: no pyramid.

Differs from the released code in: where the trunk starts from trained weights, the filters of y
start from torch's usual small weights, not from N(0, 1); a file that does not fit is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ganinv.backbone.irse import Trunk, plan_of
from ganinv.backbone.resnet34 import CHANNELS, ResNet34Trunk
from ganinv.core.errors import ConfigError, explain
from ganinv.encoder.e4e import add_offsets
from ganinv.encoder.psp import MapToStyle, height_width

SIZES = ((256, 256), (192, 256), (64, 64))  # (H, W) px whose last map the heads bring to one code


class _Heads(nn.Module):
    """L heads on the trunk's last map."""

    num_ws: int
    styles: nn.ModuleList

    last: Callable[[Tensor], Tensor]  # the trunk's: image -> c3 [B,512,H/16,W/16]

    def add_heads(self, channels: int, w_dim: int, size: tuple[int, int]) -> None:
        """Heads that bring the map of an image of this size (H, W) to one code each."""
        side = max(size) // 16
        self.styles = nn.ModuleList(MapToStyle(channels, w_dim, side) for _ in range(self.num_ws))

    def codes(self, image: Tensor, count: int) -> Tensor:
        """The outputs of the first `count` heads, [B,count,D]."""
        c3 = self.last(image)
        return torch.stack([self.styles[i](c3) for i in range(count)], dim=1)


# ------------------------------------------------------------------ the two trunks


class _OnFaces(_Heads, Trunk):
    """IR-SE, which can start from ArcFace.

    Args:
        num_ws: L, style inputs of the generator.
        w_dim: D.
        input_size: side or (height, width) of the image in px.
        input_nc: channels of s and y together; s must come first.
        trunk: "ir_se50" or "ir_se_small".

    Raises:
        ConfigError: an unknown trunk, or an image size it does not admit.
    """

    rgb_first = True

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
        self.add_heads(plan.widths[2], w_dim, size)

    def last(self, image: Tensor) -> Tensor:
        """c3."""
        return self.taps(image)[2]


class _OnAnything(_Heads, ResNet34Trunk):
    """ResNet-34, which can start from ImageNet. Arguments and errors as on faces."""

    def __init__(
        self,
        *,
        num_ws: int,
        w_dim: int,
        input_size: int | Sequence[int],
        input_nc: int,
    ) -> None:
        size = height_width(input_size)
        if size not in SIZES:
            raise ConfigError(
                explain(
                    f"images of {size[0]}x{size[1]} px (height x width) for ReStyle's ResNet-34",
                    " or ".join(f"{h}x{w}" for h, w in SIZES) + " px",
                    "resize the images (dataset.image_size)",
                )
            )
        super().__init__(input_nc)
        self.input_size, self.num_ws = size, num_ws
        self.add_heads(CHANNELS, w_dim, size)


# ------------------------------------------------------------------ two ways to combine heads


class _OverPSp(_Heads):
    """Every head gives the step of one layer."""

    def forward(self, image: Tensor) -> Tensor:
        """s, y [B,6,H,W] in [-1,1] -> the step [B,L,D] from the codes so far."""
        return self.codes(image, self.num_ws)


class _OverE4E(_Heads):
    """One step for all layers, and offsets opened one by one as in e4e."""

    @property
    def last_stage(self) -> int:
        """The stage at which every offset is open."""
        return self.num_ws - 1

    def forward(self, image: Tensor, stage: int | None = None) -> Tensor:
        """s, y [B,6,H,W] in [-1,1] -> the step [B,L,D] from the codes so far.

        Args:
            image: s and y.
            stage: the last opened delta, larger ones count as `last_stage`; None opens all.
                Heads that are not open are not computed and receive no gradient.
        """
        opened = self.last_stage if stage is None else min(stage, self.last_stage)
        return add_offsets(self.codes(image, opened + 1), self.num_ws)


class ReStyleEncoder(_OverPSp, _OnFaces):
    """ReStyle over pSp, on IR-SE."""


class ReStyleEncoder4Editing(_OverE4E, _OnFaces):
    """ReStyle over e4e, on IR-SE."""


class ReStyleResNetEncoder(_OverPSp, _OnAnything):
    """ReStyle over pSp, on ResNet-34."""


class ReStyleResNetEncoder4Editing(_OverE4E, _OnAnything):
    """ReStyle over e4e, on ResNet-34."""
