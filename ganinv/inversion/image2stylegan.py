"""Image2StyleGAN: descend to the code of one image, in W+, W or Z.

Source: Abdal et al., "Image2StyleGAN: How to Embed Images Into the StyleGAN Latent Space?", arXiv
1904.03189, sec. 3.

    x   [B,3,H,W]  image           wp [B,L,D]  code           x_hat = G(wp), stored noise

    L = mse |x_hat - x|^2 + perceptual d(x_hat, x)                                   eq. 1, 2

    space  w+  wp moves: L codes of their own           start  w_avg (the paper's, for faces),
           w   one w moves, wp_i = w                           random: U[-1,1] (for the rest; of z,
           z   z moves, wp_i = mapping(z)                      N(0,I)), or another method's result

A mask M makes both images M x: in-painting is the code of what is left of an image, crossover that
of a composite of two (Image2StyleGAN++, arXiv 1911.11544, sec. 5; its noise maps: `noise_maps.py`).

There is no released code. Differs from the paper in: d is whatever `loss` says (paper: four layers
of VGG16, unscaled).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion, Target
from ganinv.core.latent import repeat_w
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.inversion.likeness import Likeness
from ganinv.inversion.optimise import Known, Leaves, Optimise
from ganinv.inversion.start import Start, check_start, starting_point
from ganinv.loss.term import Term

Space = Literal["w+", "w", "z"]


class Image2StyleGAN(Optimise):
    """See the module. Further arguments as `Optimise`.

    Args:
        space: "w+", "w" or "z".
        start: "w_avg", "random" or another method.
        mse_weight: weight of the first term.
        perceptual_weight: weight of the second.
        perceptual: d, a term on images.
        perceptual_side: px of the longer side at which d looks, None for no limit.
    """

    def __init__(
        self,
        *,
        space: Space,
        start: Start,
        mse_weight: float,
        perceptual_weight: float,
        perceptual: Term,
        perceptual_side: int | None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_start(start, self.model, "start")
        _check_space(space, start, self.model.G)
        self.space, self.begin = space, start
        self.likeness = Likeness(perceptual, perceptual_side)
        self.mse_weight, self.perceptual_weight = mse_weight, perceptual_weight

    def start(self, target: Target) -> tuple[Leaves, Known]:
        """The leaf is named as the space."""
        known = self.likeness.remember(target)
        if self.space == "z":
            seeds = [derive_seed(seed, "start") for seed in target.seeds]
            z = randn_rows(seeds, (self.model.G.z_dim,), target.x.device)
            return {"z": z.to(target.x.dtype)}, known
        wp = starting_point(self.begin, target, self.model).wp
        return ({"wp": wp} if self.space == "w+" else {"w": wp.mean(1)}), known

    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """The code, in W+ whatever the space."""
        if self.space == "w+":
            return Inversion(wp=leaves["wp"])
        w = leaves["w"] if self.space == "w" else self.model.G.mapping(leaves["z"])
        return Inversion(wp=repeat_w(w, self.model.num_ws))

    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """mse and perceptual."""
        return self.likeness(target, known, image)

    def weights(self) -> Mapping[str, float]:
        """Of the two terms."""
        return {"mse": self.mse_weight, "perceptual": self.perceptual_weight}


def _check_space(space: str, start: Start, G: Any) -> None:
    if space not in get_args(Space):
        raise ConfigError(
            explain(f"space={space}", f"one of {', '.join(get_args(Space))}", "set it")
        )
    if space == "z" and start != "random":
        raise ConfigError(
            explain(f"space=z with start={start if isinstance(start, str) else 'a method'}",
                    "start=random: no code of W+ has a z", "set start=random, or space=w+")
        )  # fmt: skip
    if space == "z" and getattr(G, "c_dim", None):
        raise ConfigError(
            explain("space=z with a conditional generator", "one whose mapping reads z alone",
                    "set space=w+")
        )  # fmt: skip
