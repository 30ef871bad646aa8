"""Perceptual path length (PPL): how evenly images change along a path of codes.

Source: Karras et al., arXiv 1812.04948, sec. 4.1, and arXiv 1912.04958; constants of the releases.

    z_0, z_1  two samples of each image's own random numbers;  t = 0 ("end") or U[0,1) ("full")
    space w      w_t = lerp(mapping(z_0), mapping(z_1), t)
    space z      w_t = mapping(slerp(z_0, z_1, t))
    space codes  wp_t = lerp(the code that was found, mapping(z_1), t)
    ppl_i = d(G(w_t), G(w_(t + e))) / e^2       e = 1e-4, d squared in the features' differences
    ppl   = mean of ppl_i between its percentiles 1 (lower) and 99 (higher)

The column says all that papers differ in: ppl_<space>_<sampling>_<crop>_<network>, the crop being
"whole" or "face", rows 3/8 to 7/8 and columns 2/8 to 6/8 of the side. Images are averaged down to
256 px; random noise is the same for both ends. Spaces w and z are the generator's alone, with as
many pairs as there are images; "codes", which is ours, asks how even it is where codes were found,
with the f, noise maps and weights that were found there.

Differs from the releases in: d is the term that the config names (theirs is LPIPS over VGG).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.interface import Inversion
from ganinv.core.latent import repeat_w, slerp
from ganinv.core.seed import derive_seed, rand_rows, randn_rows
from ganinv.metric.bootstrap import interval, trimmed_mean
from ganinv.metric.distance import network_of
from ganinv.metric.metric import Metric, Renderer, Sample

SIDE = 256  # px, larger images are averaged down
PERCENTILES = ("lower", "higher")


class PathLength(Metric):
    """One column; lower is better.

    Args:
        space: of the path.
        sampling: where on the path.
        crop: of the images.
        epsilon: e.
        term: d, a term on images, `term(x_hat, x) -> [B]`.
    """

    needs = ("found", "model", "seeds")

    def __init__(
        self,
        *,
        space: Literal["z", "w", "codes"],
        sampling: Literal["end", "full"],
        crop: Literal["whole", "face"],
        epsilon: float,
        term: nn.Module,
    ) -> None:
        network = network_of(term)
        short = network.split()[-1].lower().removeprefix("efficientnet")  # vgg, lite0
        self.column = f"ppl_{space}_{sampling}_{crop}_{short}"
        super().__init__({self.column: False})
        self.space, self.sampling, self.crop, self.epsilon = space, sampling, crop, epsilon
        self.term = term.eval()
        self.protocol = {self.column: f"{network}, epsilon {epsilon:g}, percentiles 1 to 99"}

    @torch.no_grad()
    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """{column: [B]}, of a pair for each image."""
        assert sample.found is not None and sample.model is not None and sample.seeds is not None
        seeds = {
            what: [derive_seed(seed, "path length", what) for seed in sample.seeds]
            for what in ("first", "second", "place", "noise")
        }
        t = rand_rows(seeds["place"], sample.x.device) * (self.sampling == "full")
        ends = [self._at(sample, seeds, t + step) for step in (0.0, self.epsilon)]
        images = [self._image(sample.model, end, seeds["noise"]) for end in ends]
        return {self.column: self.term(*images).double() / self.epsilon**2}

    def _at(self, sample: Sample, seeds: Mapping[str, list[int]], t: Tensor) -> Inversion:
        """The path at t [B]."""
        assert sample.found is not None and sample.model is not None
        G, found, t = sample.model.G, sample.found, t[:, None]
        z = [randn_rows(seeds[end], (G.z_dim,), t.device) for end in ("first", "second")]
        if self.space == "z":
            return Inversion(repeat_w(G.mapping(slerp(z[0], z[1], t)), G.num_ws))
        w = repeat_w(G.mapping(z[1]), G.num_ws)
        if self.space == "codes":
            return replace(found, wp=found.wp.lerp(w, t[:, None]))
        return Inversion(repeat_w(G.mapping(z[0]), G.num_ws).lerp(w, t[:, None]))

    def _image(self, model: Renderer, found: Inversion, noise: list[int]) -> Tensor:
        image = model.render(found, noise="random", seeds=noise)
        if self.crop == "face":
            eighth = image.shape[-1] // 8
            image = image[..., 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
        factor = model.G.resolution // SIDE
        return F.avg_pool2d(image, factor) if factor > 1 else image

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all rows [N]."""
        return {self.column: trimmed_mean(rows[self.column], PERCENTILES)}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over pairs."""

        def statistic(row: Tensor) -> float:
            return trimmed_mean(row, PERCENTILES)

        return {self.column: interval(statistic, rows[self.column])}
