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

from torch import Tensor

from ganinv.core.errors import ConfigError, explain
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
        if refinements < 1:
            raise ConfigError(
                explain(
                    f"method.refinements={refinements}", "at least 1", "set it to 5, as released"
                )
            )
        super().__init__(start_from_w_avg=True, **rest)
        self.refinements = self.model.refinements = refinements

    def losses_E(self, s: Tensor, x: Tensor, position: Tensor) -> Iterator[Tensor]:
        """L_method of every pass; the last one is what the logs show."""
        names = [f"noise{t}" for t in range(self.refinements)]
        seeds: list[list[int] | None] = [self.seeds(name, position) for name in names]
        passes = self.model.passes(s, self.noise, seeds, **self.encoder_arguments())
        for t, (wp, y) in enumerate(passes):
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

    def measure(self, wp: Tensor, y: Tensor, x: Tensor) -> dict[str, Tensor]:
        """e4e's terms."""
        latent = self.terms.latent(wp, self.G.w_avg, stage=self.stage, critic=self.D)
        return self.terms.image(y, x) | latent

    def after(self, wp: Tensor) -> None:
        """D will see them."""
        self.codes.append(wp.detach())
