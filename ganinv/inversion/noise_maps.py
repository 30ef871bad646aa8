"""The noise phase of Image2StyleGAN++: the code stays, the noise maps take up what it cannot say.

Source: Abdal et al., "Image2StyleGAN++: How to Edit the Embedded Images?", arXiv 1911.11544, sec. 3
and 4.1: first the code, then the maps; both at once makes the code worse.

    wp [B,L,D]  of the method that came before, frozen
    n           noise maps, start at that method's, or at the generator's own

    L = mse |M_n (G(wp, n) - x)|^2 + mse_around |(1 - M_n) (G(wp, n) - G(wp, n_0))|^2

M_n is the target's mask: with one, the maps move the image outside of it nowhere. The high
frequencies of the image end up in the maps, where no edit of wp moves them.

There is no released code. Differs from the paper in: the rate is ours (paper: 5, for maps of
another scale of the noise's strength).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion, Target
from ganinv.inversion import noise
from ganinv.inversion.optimise import Known, Leaves, Optimise
from ganinv.inversion.start import Start, check_start, starting_point


class NoiseMaps(Optimise):
    """See the module. Further arguments as `Optimise`.

    Args:
        start: the method whose code it is, or "w_avg" or "random".
        mse_weight: weight of the first term.
        mse_around_weight: weight of the second; of targets without a mask it is 0 anyway.
    """

    def __init__(
        self, *, start: Start, mse_weight: float, mse_around_weight: float, **rest: Any
    ) -> None:
        super().__init__(**rest)
        check_start(start, self.model, "start")
        if not noise.buffers(self.model.G):
            raise ConfigError(
                explain("a generator without noise maps (StyleGAN3)",
                        "a StyleGAN (v1) or StyleGAN2", "leave noise_maps out")
            )  # fmt: skip
        self.begin, self.changes_weights = start, getattr(start, "changes_weights", False)
        self.mse_weight, self.mse_around_weight = mse_weight, mse_around_weight

    def start(self, target: Target) -> tuple[Leaves, Known]:
        """The maps of the method before; its code and image stay."""
        begun = starting_point(self.begin, target, self.model)
        maps = noise.stored(self.model.G, len(target.key)) if begun.noise is None else begun.noise
        with torch.no_grad():
            image = self.model.render(begun, target.x.shape[-2:])
        kept = {"wp": begun.wp, "f": begun.f, "weights": begun.weights, "image": image}
        return noise.as_leaves(maps), kept

    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """The code of before with the new maps."""
        maps = noise.of_leaves(leaves)
        return Inversion(wp=known["wp"], f=known["f"], noise=maps, weights=known["weights"])

    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """mse and, of targets with a mask, mse_around."""
        error = (image - target.x).square()
        if target.mask is None:
            return {"mse": error.mean((1, 2, 3)), "mse_around": torch.zeros_like(error[:, 0, 0, 0])}
        around = (1 - target.mask) * (image - known["image"]).square()
        return {
            "mse": (target.mask * error).mean((1, 2, 3)),
            "mse_around": around.mean((1, 2, 3)),
        }

    def weights(self) -> Mapping[str, float]:
        """Of the two terms."""
        return {"mse": self.mse_weight, "mse_around": self.mse_around_weight}
