"""The Laplacian-pyramid distance: what two images differ by, scale by scale.

Source: Burt & Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983; as a loss Bojanowski
et al. (GLO), arXiv 1707.05776, sec. 3.2.

    g_0 = x_hat - x,  g_{j+1} = every second px of blur(g_j)       blur: (1,4,6,4,1)/16 both ways
    b_j = g_j - enlarge(g_{j+1})  for j < J,  b_J = g_J            enlarge: bilinear
    d(x_hat, x) = sum over j of a_j mean |b_j|,  a_j proportional to growth^j, of sum 1       [B]

The pyramid is linear, so it is that of the difference. growth 4 is GLO's 2^{2j}, 1 weighs all
scales alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.loss.term import Term

TAPS = (1.0, 4.0, 6.0, 4.0, 1.0)
SMALLEST = 4  # px a side that the coarsest level must have


class LaplacianPyramid(Term):
    """The distance above, images in [-1,1].

    Args:
        weight: factor in the total.
        levels: J, of band-pass maps; None: as many as leave 8 px on the shorter side.
        growth: the weight of a level, as a multiple of the next finer one's; above 0.
    """

    reads = ("x_hat", "x")

    def __init__(self, *, weight: float, levels: int | None, growth: float) -> None:
        super().__init__(weight=weight)
        if levels is not None and levels < 1 or not growth > 0:
            raise ConfigError(
                explain(f"levels={levels}, growth={growth} for a Laplacian pyramid",
                        "at least one level and a growth above 0", "set them")
            )  # fmt: skip
        self.levels, self.growth = levels, growth

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,C,H,W] -> [B].

        Raises:
            ConfigError: images too small for so many levels.
        """
        bands = self.bands(x_hat - x)
        shares = [self.growth**j for j in range(len(bands))]
        means = [a * b.abs().mean((1, 2, 3)) for a, b in zip(shares, bands, strict=True)]
        return torch.stack(means).sum(0) / sum(shares)

    def bands(self, image: Tensor) -> list[Tensor]:
        """[B,C,H,W] -> b_0 ... b_J; enlarged and added up they are the image again."""
        side = min(image.shape[-2:])
        levels = self.levels
        if levels is None:
            levels = max(1, side.bit_length() - 4)  # 64 px: 3, 1024 px: 7
        if side >> levels < SMALLEST:
            raise ConfigError(
                explain(f"{levels} levels of a Laplacian pyramid on images of {side} px",
                        f"a coarsest level of at least {SMALLEST} px", "set fewer levels")
            )  # fmt: skip
        found = []
        for _ in range(levels):
            below = _blur(image)[..., ::2, ::2]
            found.append(image - _enlarge(below, image))
            image = below
        return [*found, image]


def _blur(image: Tensor) -> Tensor:
    channels = image.shape[1]
    taps = torch.tensor(TAPS, dtype=image.dtype, device=image.device) / sum(TAPS)
    image = F.pad(image, (2, 2, 2, 2), mode="reflect")
    image = F.conv2d(image, taps[None, None, :, None].expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(image, taps[None, None, None].expand(channels, 1, 1, -1), groups=channels)


def _enlarge(small: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(small, like.shape[-2:], mode="bilinear", align_corners=False)
