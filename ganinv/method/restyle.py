"""ReStyle: an encoder that sees its own reconstruction and refines the codes in several passes.

Source: Alaluf et al., "ReStyle: A Residual-Based StyleGAN Encoder via Iterative Refinement", arXiv
2104.02699, sec. 3, over pSp and over e4e.

    s      [B,C,H,W]  input; x itself when inverting      x      [B,3,H,W]  target
    wp_t   [B,L,D]    codes after pass t                  y_t    [B,3,H,W]  their image
    T      `refinements`

    wp_0 = w_avg,                    y_0 = G(wp_0), the average image                   sec. 3.1
    wp_t = wp_{t-1} + E(s, y_{t-1}), y_t = G(wp_t),       t = 1 ... T                   eq. 1-2
    L    = sum_t L_method(x, y_t, wp_t); nothing is backpropagated from one pass into the next

L_method is pSp's or e4e's, and so is everything else: ranks, pools, progressive stages.

Differs from the released code in: over e4e, D sees codes with w_avg, as E's adversarial term does
(released: without, so that D told the two apart by the offset alone), and those of the last pass
(released: a forward pass of its own, of the first); the noise of a pass is a function of (seed,
position), and validation uses the stored one (released: both are drawn anew); over e4e, E's running
statistics move once a pass (released: once more for D's own pass).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Batch
from ganinv.loss.term import Losses
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

    def refine(self, s: Tensor, x: Tensor, position: Tensor) -> Tensor:
        """E descends L, pass by pass: the graph of one pass lives at a time. Returns wp_T [B,L,D];
        the terms in the logs are those of the last pass, the total is the sum of all."""
        wp, y = self.model.average(s)  # wp_0, y_0
        for t in range(self.refinements):
            last = t == self.refinements - 1
            descend = self.descend if last else self.accumulate
            wp, y = descend("E", partial(self.loss_pass, t), s, y, wp, x, position)
        return wp

    def loss_pass(
        self, t: int, s: Tensor, y: Tensor, wp: Tensor, x: Tensor, position: Tensor
    ) -> tuple[Losses, Tensor, Tensor]:
        """L_method of pass t + 1, and wp_{t+1}, y_{t+1} for the next."""
        raise AssertionError(f"{type(self).__name__} has no loss_pass")


class ReStylePSp(IterativeRefinement, PSp):
    """ReStyle over pSp."""

    def step(self, x: Tensor, batch: Batch) -> None:
        """E descends L."""
        self.refine(self.encoder_input(batch, x), x, batch["position"])

    def loss_pass(
        self, t: int, s: Tensor, y: Tensor, wp: Tensor, x: Tensor, position: Tensor
    ) -> tuple[Losses, Tensor, Tensor]:
        """pSp's L of pass t + 1, and wp_{t+1}, y_{t+1} for the next."""
        wp = wp + self.E(torch.cat([s, y], 1))
        y = self.model.render(wp, s.shape[-2:], self.noise, self.seeds(f"noise{t}", position))
        return self.terms(x_hat=y, x=x, wp=wp, w_avg=self.w_avg), wp, y


class ReStyleE4E(IterativeRefinement, E4E):
    """ReStyle over e4e."""

    def step(self, x: Tensor, batch: Batch) -> None:
        """E descends L, then D moves on wp_T as in e4e."""
        wp = self.refine(self.encoder_input(batch, x), x, batch["position"])
        self.step_D(wp, batch["position"])

    def loss_pass(
        self, t: int, s: Tensor, y: Tensor, wp: Tensor, x: Tensor, position: Tensor
    ) -> tuple[Losses, Tensor, Tensor]:
        """e4e's L_E of pass t + 1, and wp_{t+1}, y_{t+1} for the next."""
        wp = wp + self.E(torch.cat([s, y], 1), stage=self.stage)
        y = self.model.render(wp, s.shape[-2:], self.noise, self.seeds(f"noise{t}", position))
        codes = {"wp": wp, "w_avg": self.w_avg, "stage": self.stage, "critic": self.D}
        return self.terms(x_hat=y, x=x, **codes), wp, y
