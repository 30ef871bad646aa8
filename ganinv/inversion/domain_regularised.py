"""IDInvert's second half: descend from the encoder's code, with the encoder as regulariser.

Source: Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv 2004.00049, sec. 3.2.

    x   [B,3,H,W]  image     wp [B,L,D]  starts at E(x)     x_hat = G(wp), stored noise     E frozen

    L = mse |x - x_hat|^2 + perceptual d(x, x_hat) + domain mean (wp - E(x_hat))^2            eq. 5

The last term keeps wp among the codes that E would give, where editing is known to work; gradients
flow through E, G and wp. domain_weight=0 is the paper's ablation, which never runs E.

Differs from the released code in: the targets' features are computed once; d is whatever `loss`
says (released: relu4_3 of VGG16, weight 5e-5); a code's Adam starts afresh for each image (released
TensorFlow code: moments of the image before).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion, Target
from ganinv.inversion.likeness import Likeness
from ganinv.inversion.optimise import Known, Leaves, Optimise
from ganinv.inversion.start import Start, check_start, starting_point
from ganinv.loss.term import Term
from ganinv.task.image import Image


class DomainRegularised(Optimise):
    """See the module. Further arguments as `Optimise`.

    Args:
        start: the method that gives the first code, or "w_avg" or "random".
        mse_weight: weight of the first term.
        perceptual: d, a term on images.
        perceptual_weight: weight of the second.
        perceptual_side: px of the longer side at which d looks, None for no limit.
        domain_weight: weight of the third.
    """

    def __init__(
        self,
        *,
        start: Start,
        mse_weight: float,
        perceptual: Term,
        perceptual_weight: float,
        perceptual_side: int | None,
        domain_weight: float,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_start(start, self.model, "start")
        if domain_weight and not isinstance(self.model.task, Image):
            name = type(self.model.task).__name__
            raise ConfigError(
                explain(f"an encoder of the task {name}, which does not read images such as G's",
                        "an encoder of images: the domain term is wp - E(G(wp))",
                        "take another checkpoint, or set domain_weight=0")
            )  # fmt: skip
        self.begin, self.likeness = start, Likeness(perceptual, perceptual_side)
        self.mse_weight, self.perceptual_weight = mse_weight, perceptual_weight
        self.domain_weight = domain_weight

    def check(self, target: Target) -> None:
        """Also refuse images of another size than E reads."""
        super().check(target)
        size, wanted = tuple(target.x.shape[-2:]), self.model.input_size
        if self.domain_weight and size != wanted:
            given, read = (" x ".join(map(str, pair)) for pair in (size, wanted))
            raise ConfigError(
                explain(f"images of {given} px for domain_regularised, whose encoder reads {read}",
                        "images of the encoder's size: the domain term is wp - E(G(wp))",
                        "leave the size out, or set domain_weight=0")
            )  # fmt: skip

    def start(self, target: Target) -> tuple[Leaves, Known]:
        """E(x), or whatever `start` says."""
        wp = starting_point(self.begin, target, self.model).wp
        return {"wp": wp}, self.likeness.remember(target)

    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """The code."""
        return Inversion(wp=leaves["wp"])

    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """mse, perceptual and domain."""
        values = self.likeness(target, known, image)
        if self.domain_weight:
            values["domain"] = (leaves["wp"] - self.model.encode(image)).square().mean((1, 2))
        else:
            values["domain"] = torch.zeros_like(values["mse"])
        return values

    def weights(self) -> Mapping[str, float]:
        """Of the three terms."""
        return {
            "mse": self.mse_weight,
            "perceptual": self.perceptual_weight,
            "domain": self.domain_weight,
        }
