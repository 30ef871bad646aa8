"""How near a rendered image is to its target, with what is known of the target computed once.

    x, x_hat [B,3,H,W] in [-1,1]     M [B,1,H,W]  1 where x counts (a target without: everywhere)

    mse         mean over pixels and channels of (M x_hat - M x)^2
    perceptual  d(low(M x_hat), low(M x)), low averages down to at most `side` px

Source of the masks: Abdal et al. (Image2StyleGAN++), arXiv 1911.11544, sec. 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Target
from ganinv.inversion.optimise import Known
from ganinv.loss.term import Term


class Likeness:
    """The two values above.

    Args:
        perceptual: d, a term on images; its own weight plays no part.
        side: px of the longer side of what d compares, None for no limit.

    Raises:
        ConfigError: a term on codes, or a side that is no size.
    """

    def __init__(self, perceptual: Term, side: int | None) -> None:
        if set(perceptual.reads) != {"x_hat", "x"}:
            raise ConfigError(
                explain(f"{type(perceptual).__name__} as perceptual term, which reads "
                        f"{', '.join(perceptual.reads)}",
                        "a term that compares images, such as Perceptual or LPIPS", "set loss=...")
            )  # fmt: skip
        if side is not None and side < 1:
            raise ConfigError(
                explain(f"perceptual_side={side}", "px, or null for no limit", "set it")
            )
        self.perceptual, self.side = perceptual, side

    def low(self, image: Tensor) -> Tensor:
        """[B,3,H,W], averaged down so that the longer side is at most `side` px."""
        longest = max(image.shape[-2:])
        if self.side is None or longest <= self.side:
            return image
        size = [max(1, round(n * self.side / longest)) for n in image.shape[-2:]]
        return F.interpolate(image, size, mode="area")

    @torch.no_grad()
    def remember(self, target: Target) -> Known:
        """What of the targets is computed once."""
        self.perceptual.to(target.x.device)
        return {"features": self.perceptual.remember(self.low(masked(target.x, target)))}

    def __call__(self, target: Target, known: Known, image: Tensor) -> dict[str, Tensor]:
        """image [B,3,H,W] -> mse and perceptual, [B] each."""
        x_hat, x = masked(image, target), masked(target.x, target)
        return {
            "mse": (x_hat - x).square().mean((1, 2, 3)),
            "perceptual": self.perceptual.compare(self.low(x_hat), known["features"]),
        }


def masked(image: Tensor, target: Target) -> Tensor:
    """M image."""
    return image if target.mask is None else image * target.mask
