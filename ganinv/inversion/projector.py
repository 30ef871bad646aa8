"""The projector of StyleGAN2 and StyleGAN2-ADA: one w and the noise maps of an image.

Source: Karras et al., arXiv 1912.04958, app. D; constants of NVlabs/stylegan2-ada-pytorch.

    w [B,D]  starts at w_avg         n  noise maps, start N(0,1); StyleGAN3 has none
    t = step / steps                 w_avg, w_std: of 10,000 samples (`statistics.py`)
    start    w_avg as released; or another method's result: w is the mean of its wp over layers

    rate(t) = lr (1/2 - 1/2 cos(pi min(1, (1 - t) / ramp_down))) min(1, t / ramp_up)
    w_t     = w + w_std w_noise max(0, 1 - t / w_noise_ramp)^2 N(0,I)
    L       = perceptual d(G(w_t, n), x) + noise_reg R(n)              R: `noise.py`
    after each step every n to mean 0 and root mean square 1

PTI finds its pivots so, with 450 steps, lr 0.01 and 600 samples.

Differs from the released code in: what it found is rendered with the noise maps it found (released:
with the generator's own, and the optimised ones are lost); many images at once, noise statistics
and random numbers of each its own; d is whatever `loss` says (released: VGG16 with LPIPS's weights,
at 256 px); samples of W are of another seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion, Target
from ganinv.core.latent import repeat_w
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.inversion import noise
from ganinv.inversion.likeness import Likeness
from ganinv.inversion.optimise import Known, Leaves, Optimise
from ganinv.inversion.start import Start, check_start, starting_point
from ganinv.inversion.statistics import moments_of, w_std
from ganinv.loss.term import Term


class Projector(Optimise):
    """See the module. Further arguments as `Optimise`.

    Args:
        start: of w: "w_avg", that of the samples; "random"; or another method, of whose result
            only the code is used.
        ramp_down: part of the steps at the end in which the rate falls.
        ramp_up: part of the steps at the beginning in which it rises.
        w_noise: noise on w, in units of w_std.
        w_noise_ramp: part of the steps in which that noise fades away.
        noise_reg: weight of R.
        samples: of W, for w_avg and w_std.
        perceptual: d, a term on images.
        perceptual_weight: its weight.
        perceptual_side: px of the longer side at which d looks, None for no limit.
    """

    def __init__(
        self,
        *,
        start: Start,
        ramp_down: float,
        ramp_up: float,
        w_noise: float,
        w_noise_ramp: float,
        noise_reg: float,
        samples: int,
        perceptual: Term,
        perceptual_weight: float,
        perceptual_side: int | None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_start(start, self.model, "start")
        ramps = {"ramp_down": ramp_down, "ramp_up": ramp_up, "w_noise_ramp": w_noise_ramp}
        for name, value in ramps.items():
            if not 0 < value <= 1:
                raise ConfigError(
                    explain(f"{name}={value}", "a part of all steps, above 0, at most 1", "set it")
                )
        self.begin, self.ramp_down, self.ramp_up = start, ramp_down, ramp_up
        self.w_noise, self.w_noise_ramp, self.noise_reg = w_noise, w_noise_ramp, noise_reg
        self.likeness, self.perceptual_weight = (
            Likeness(perceptual, perceptual_side),
            perceptual_weight,
        )
        moments = moments_of(self.model.G, samples)
        self.w_avg, self.w_std = moments["mean_w"].to(self.model.G.w_avg), w_std(moments)

    def rate(self, step: int) -> float:
        """rate(t)."""
        t = step / self.steps
        down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / self.ramp_down))
        return self.lr * down * min(1.0, t / self.ramp_up)

    def noise_on_w(self, step: int) -> float:
        """The standard deviation of the noise on w."""
        t = step / self.steps
        return self.w_std * self.w_noise * max(0.0, 1 - t / self.w_noise_ramp) ** 2

    def start(self, target: Target) -> tuple[Leaves, Known]:
        """w and white noise."""
        if self.begin == "w_avg":
            w = self.w_avg.to(target.x.device).expand(len(target.key), -1).clone()
        else:
            w = starting_point(self.begin, target, self.model).wp.mean(1)
        maps = noise.as_leaves(noise.white(self.model.G, target))
        return {"w": w} | maps, self.likeness.remember(target)

    def tried(self, target: Target, leaves: Leaves, known: Known, step: int) -> Inversion:
        """w_t and n."""
        w = leaves["w"]
        if (std := self.noise_on_w(step)) > 0:
            seeds = [derive_seed(seed, "noise on w", step) for seed in target.seeds]
            w = w + std * randn_rows(seeds, w.shape[1:], w.device).to(w.dtype)
        return self.found(leaves | {"w": w}, known)

    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """w, repeated, and n."""
        maps = noise.of_leaves(leaves)
        return Inversion(wp=repeat_w(leaves["w"], self.model.num_ws), noise=maps or None)

    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """The likeness, and R where there are noise maps."""
        values = self.likeness(target, known, image)
        maps = noise.of_leaves(leaves)
        values["noise"] = noise.regulariser(maps) if maps else torch.zeros_like(values["mse"])
        return values

    def weights(self) -> Mapping[str, float]:
        """mse is only watched."""
        return {"perceptual": self.perceptual_weight, "noise": self.noise_reg}

    def project(self, leaves: Leaves) -> None:
        """Noise stays noise."""
        noise.normalise(noise.of_leaves(leaves))
