"""PTI: the code stays, the generator's weights move, for each image its own.

Source: Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images", arXiv 2106.05744,
sec. 3; constants of danielroich/PTI.

    wp_p  [B,L,D]    the pivot: any other method's code, frozen, with its noise maps and f
    theta, d_i       weights of G's synthesis, never changed; the change for image i, starts at 0

    L    = perceptual d(x, G(wp_p; theta + d)) + mse |x - G(wp_p; theta + d)|^2 + locality L_R
    L_R  = perceptual d(x_r, x_r*) + mse |x_r - x_r*|^2,  x_r = G(wp_r; theta), x_r* with theta + d
    wp_r = wp_p + alpha (wp_z - wp_p) / |wp_z - wp_p|_F,  wp_z = mapping(z), truncated to 1/2

The norm is over all L layers. Image i has enough when its d(x, ...) is at most `threshold`: its
change is then kept as it is, before the step, and it leaves the batch.

Several images of one person, `shared`: one d for all of a batch, which descends the mean of their
L (sec. 3.2). Their results then depend on each other, and none stops before the others.

Differs from the released code in: many images at once, in the shared mode too, where a step
descends the mean (released: one image after the other); the pivot's noise maps are used (released:
lost after the projection); features of x are computed once; what is kept is a change of the
weights, not a copy of G.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion, Target
from ganinv.core.latent import repeat_w, truncate
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.inversion.likeness import Likeness
from ganinv.inversion.optimise import Known, Leaves, Optimise
from ganinv.inversion.start import Start, check_pivot, pivot_of
from ganinv.loss.term import Term

PREFIX = "synthesis."  # names are those of the generator's state dict
PSI = 0.5  # of wp_z, released


class PTI(Optimise):
    """See the module. Further arguments as `Optimise`.

    Args:
        pivot: the method that gives wp_p.
        mse_weight: weight of the pixels.
        perceptual: d, a term on images.
        perceptual_weight: its weight.
        perceptual_side: px of the longer side at which d looks, None for no limit.
        threshold: of d, at which an image has enough, a number or one for each class of d; None
            for all steps.
        locality_weight: weight of L_R; 0 leaves it out.
        locality_samples: z's an image and step, whose L_R is averaged.
        locality_alpha: alpha, the distance of wp_r from the pivot.
        shared: one change of the weights for all images of a batch.
    """

    changes_weights = True

    def __init__(
        self,
        *,
        pivot: Start,
        mse_weight: float,
        perceptual: Term,
        perceptual_weight: float,
        perceptual_side: int | None,
        threshold: float | Mapping[str, float] | None,
        locality_weight: float,
        locality_samples: int,
        locality_alpha: float,
        shared: bool,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_pivot(pivot, self.model)
        if locality_weight and (locality_samples < 1 or not locality_alpha > 0):
            raise ConfigError(
                explain(f"locality_samples={locality_samples}, locality_alpha={locality_alpha}",
                        "at least one sample, at a distance above 0",
                        "set them, or locality_weight=0")
            )  # fmt: skip
        self.pivot, self.likeness = pivot, Likeness(perceptual, perceptual_side)
        self.mse_weight, self.perceptual_weight = mse_weight, perceptual_weight
        self.threshold = threshold_of(threshold, perceptual)
        self.locality_weight = locality_weight
        self.locality_samples, self.alpha = locality_samples, locality_alpha
        self.shared = shared

    def start(self, target: Target) -> tuple[Leaves, Known]:
        """The pivot, and no change yet."""
        begun = pivot_of(self.pivot, target, self.model)
        count = len(target.key)
        parameters = self.model.G.synthesis.named_parameters()
        changes = {PREFIX + n: p.new_zeros(count, *p.shape) for n, p in parameters}
        known = {"wp": begun.wp.detach(), "f": begun.f, "noise": begun.noise}
        return changes, known | self.likeness.remember(target)

    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """The pivot with the changes."""
        return Inversion(wp=known["wp"], f=known["f"], noise=known["noise"], weights=leaves)

    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """mse, perceptual and locality."""
        values = self.likeness(target, known, image)
        values["locality"] = torch.zeros_like(values["mse"])
        for sample in range(self.locality_samples if self.locality_weight else 0):
            wp = self.nearby(target, known["wp"], step, sample)
            values["locality"] = values["locality"] + self.locality(target, leaves, wp)
        values["locality"] = values["locality"] / max(self.locality_samples, 1)
        return values

    @torch.no_grad()
    def nearby(self, target: Target, pivot: Tensor, step: int, sample: int) -> Tensor:
        """wp_r [B,L,D], at a distance alpha of the pivot, in a direction of its own for each image
        and step."""
        G = self.model.G
        seeds = [derive_seed(seed, "locality", step, sample) for seed in target.seeds]
        z = randn_rows(seeds, (G.z_dim,), pivot.device).to(pivot.dtype)
        wp_z = truncate(repeat_w(G.mapping(z), G.num_ws), G.w_avg, PSI)
        direction = wp_z - pivot
        return pivot + self.alpha * direction / direction.flatten(1).norm(dim=1)[:, None, None]

    def locality(self, target: Target, leaves: Leaves, wp: Tensor) -> Tensor:
        """L_R of one wp_r, [B]."""
        size = target.x.shape[-2:]
        with torch.no_grad():
            before = self.model.render(wp, size, noise="none")
            kept = self.likeness.perceptual.remember(self.likeness.low(before))
        after = self.model.render(Inversion(wp=wp, weights=leaves), size, noise="none")
        distance = self.likeness.perceptual.compare(self.likeness.low(after), kept)
        mse = (after - before).square().mean((1, 2, 3))
        return self.mse_weight * mse + self.perceptual_weight * distance

    def weights(self) -> Mapping[str, float]:
        """Of the three terms."""
        return {
            "mse": self.mse_weight,
            "perceptual": self.perceptual_weight,
            "locality": self.locality_weight,
        }

    def converged(self, values: Mapping[str, Tensor]) -> Tensor | None:
        """d(x, ...) at most the threshold."""
        if self.threshold is None or self.shared:
            return None
        return values["perceptual"] <= self.threshold

    def couple(self, gradients: list[Tensor]) -> list[Tensor]:
        """Of the shared mode, their mean for every image."""
        if not self.shared:
            return gradients
        return [gradient.mean(0, keepdim=True).expand_as(gradient) for gradient in gradients]


def threshold_of(given: float | Mapping[str, float] | None, term: Term) -> float | None:
    """The threshold for a term; distances of different networks have different scales.

    Raises:
        ConfigError: none for a term of this class.
    """
    if not isinstance(given, Mapping):
        return given
    name = type(term).__name__
    if name not in given:
        raise ConfigError(
            explain(f"no threshold for the perceptual term {name}",
                    f"one for its scale; there are some for {', '.join(given)}",
                    "set inversion.pti.threshold to a number, or to null for all steps")
        )  # fmt: skip
    return float(given[name])
