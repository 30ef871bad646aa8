"""ReStyle: an encoder that sees its own reconstruction and refines the codes in several passes.

Source: Alaluf et al., "ReStyle: A Residual-Based StyleGAN Encoder via Iterative Refinement", arXiv
2104.02699, sec. 3, over pSp and over e4e.

    s      [B,C,H,W]  input; x itself when inverting      x      [B,3,H,W]  target
    wp_t   [B,L,D]    codes after pass t                  y_t    [B,3,H,W]  their image
    T      `refinements`

    wp_0 = w_avg,                    y_0 = G(wp_0), the average image                   sec. 3.1
    wp_t = wp_{t-1} + E(s, y_{t-1}), y_t = G(wp_t),       t = 1 ... T                   eq. 1-2
    L    = sum_t L_method(x, y_t, wp_t); nothing is backpropagated from one pass into the next

L_method is pSp's or e4e's, and so is everything else: ranks, pools, progressive rows.

Differs from the released code in: over e4e, D sees codes with w_avg, as E's adversarial term does
(released: without, so that D told the two apart by the offset alone), and those of the last pass
(released: a forward pass of its own, of the first); each pass draws noise of its own from (seed,
position); the average image is made with the stored noise, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Noise
from ganinv.core.latent import repeat_w
from ganinv.method.e4e import E4E
from ganinv.method.inverting import EncoderMethod
from ganinv.method.psp import PSp


class IterativeRefinement(EncoderMethod):
    """The passes, whatever the loss. Further arguments as the method's.

    Args:
        refinements: T.
    """

    extra_input_channels = 3  # its present reconstruction

    def __init__(self, *, refinements: int, **rest: Any) -> None:
        super().__init__(start_from_w_avg=True, **rest)
        if refinements < 1:
            raise ConfigError(
                explain(
                    f"method.refinements={refinements}", "at least 1", "set it to 5, as released"
                )
            )
        self.refinements = refinements
        self._average: Tensor | None = None

    def average_image(self, size: torch.Size) -> Tensor:
        """y_0 [1,3,*size]."""
        if self._average is None or self._average.shape[-2:] != size:
            with torch.no_grad():
                wp = repeat_w(self.G.w_avg[None], self.G.num_ws)
                self._average = self.decode(wp, size, "const", None)
        return self._average.to(self.device)

    def step_of(self, s: Tensor) -> Tensor:
        """E's step [B,L,D] on s [B,C+3,H,W]."""
        step: Tensor = self.E(s)
        return step

    def passes(self, s: Tensor, noise: Noise, seeds: list[list[int] | None]) -> Iterator[Any]:
        """(wp_t [B,L,D], y_t [B,3,H,W]) of every pass; the next pass sees them detached."""
        size = s.shape[-2:]
        wp = repeat_w(self.G.w_avg.expand(len(s), -1), self.G.num_ws)
        y = self.average_image(size).expand(len(s), -1, -1, -1)
        for t in range(self.refinements):
            wp = wp.detach() + self.step_of(torch.cat([s, y.detach()], 1))
            y = self.decode(wp, size, noise, seeds[t])
            yield wp, y

    def encode(self, s: Tensor) -> Tensor:
        """s [B,C,H,W] in [-1,1] -> wp_T [B,L,D]."""
        for wp, _ in self.passes(s, "const", [None] * self.refinements):
            codes = wp
        return codes

    def losses_E(self, s: Tensor, x: Tensor, position: Tensor) -> Iterator[Tensor]:
        """L_method of every pass; the last one is what the logs show."""
        names = [f"noise{t}" for t in range(self.refinements)]
        seeds: list[list[int] | None] = [self.seeds(name, position) for name in names]
        for t, (wp, y) in enumerate(self.passes(s, self.noise, seeds)):
            values = self.measure(wp, y, x)
            last = t + 1 == self.refinements
            yield self.log_and_sum(values) if last else self.terms.total(values)
            if last:
                self.after(wp)

    def measure(self, wp: Tensor, y: Tensor, x: Tensor) -> dict[str, Tensor]:
        """The method's terms; name -> [B]."""
        return self.terms.image(y, x) | self.terms.latent(wp, self.G.w_avg)

    def after(self, wp: Tensor) -> None:
        """What the method keeps of wp_T."""


class ReStylePSp(IterativeRefinement, PSp):
    """ReStyle over pSp."""


class ReStyleE4E(IterativeRefinement, E4E):
    """ReStyle over e4e."""

    def step_of(self, s: Tensor) -> Tensor:
        """E's step at the present stage."""
        step: Tensor = self.E(s, stage=self.stage)
        return step

    def measure(self, wp: Tensor, y: Tensor, x: Tensor) -> dict[str, Tensor]:
        """e4e's terms."""
        latent = self.terms.latent(wp, self.G.w_avg, stage=self.stage, critic=self.D)
        return self.terms.image(y, x) | latent

    def after(self, wp: Tensor) -> None:
        """D will see them."""
        self.codes.append(wp.detach())
