"""ReStyle's encoders: the image beside its present reconstruction -> a step towards better codes.

Source: Alaluf et al., "ReStyle: A Residual-Based StyleGAN Encoder via Iterative Refinement", arXiv
2104.02699, sec. 3 and 4. The state dicts have exactly the keys of the `BackboneEncoder` and
`ProgressiveBackboneEncoder` of yuval-alaluf/restyle-encoder, which are equal: only the name of the
class tells the two apart.

    s [B,6,H,W] in [-1,1]: x [B,3,H,W] and y [B,3,H,W], the image of the codes so far
    wp_0 = w_avg,   y_0 = G(wp_0),   wp_t = wp_{t-1} + E(x, y_{t-1}),   y_t = G(wp_t)      [B,L,D]

The heads are those of pSp and e4e, but all of them read the last map of the trunk: no pyramid.

Differs from the released code in: where the trunk starts from ArcFace's weights, the filters of y
start from torch's usual small weights, not from N(0, 1); a file that does not fit is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganinv.backbone.irse import Trunk, load_trunk, plan_of
from ganinv.encoder.e4e import add_offsets
from ganinv.encoder.psp import MapToStyle, height_width


class _Refining(Trunk):
    """The trunk and the L heads on its last map.

    Args:
        num_ws: L, style inputs of the generator.
        w_dim: D.
        input_size: side or (height, width) of the image in px.
        input_nc: channels of x and y together; x must come first.
        trunk: "ir_se50" or "ir_se_small".
        trunk_weights: path or name of ArcFace's `model_ir_se50.pth`; None trains from random
            weights, which is announced.

    Raises:
        ConfigError: an unknown trunk, or an image size it does not admit.
        WeightsMissing, WeightsError: see `ganinv.backbone.weights`.
    """

    def __init__(
        self,
        *,
        num_ws: int,
        w_dim: int,
        input_size: int | Sequence[int],
        input_nc: int,
        trunk: str,
        trunk_weights: str | None,
    ) -> None:
        size = height_width(input_size)
        plan = plan_of(trunk, size)
        super().__init__(plan, input_nc)
        self.input_size, self.num_ws = size, num_ws
        side = max(size) // 16
        self.styles = nn.ModuleList(MapToStyle(plan.widths[2], w_dim, side) for _ in range(num_ws))
        self.trunk_source = load_trunk(self, trunk_weights, rgb_first=True)

    def codes(self, image: Tensor, count: int) -> Tensor:
        """What the first `count` heads say, [B,count,D]."""
        c3 = self.taps(image)[2]
        return torch.stack([self.styles[i](c3) for i in range(count)], dim=1)


class ReStyleEncoder(_Refining):
    """ReStyle over pSp: every head gives one row of the step."""

    def forward(self, image: Tensor) -> Tensor:
        """s [B,6,H,W] in [-1,1] -> the step [B,L,D] from the codes so far."""
        return self.codes(image, self.num_ws)


class ReStyleEncoder4Editing(_Refining):
    """ReStyle over e4e: one step for all rows, and offsets opened one by one as in e4e."""

    @property
    def last_stage(self) -> int:
        """The stage at which every offset is open."""
        return self.num_ws - 1

    def forward(self, image: Tensor, stage: int | None = None) -> Tensor:
        """s [B,6,H,W] in [-1,1] -> the step [B,L,D] from the codes so far.

        Args:
            image: s.
            stage: the last opened delta, larger ones count as `last_stage`; None opens all.
                Heads that are not open are not computed and receive no gradient.
        """
        opened = self.last_stage if stage is None else min(stage, self.last_stage)
        return add_offsets(self.codes(image, opened + 1), self.num_ws)
