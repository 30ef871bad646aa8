"""pSp: an encoder into W+, trained by reconstruction through a frozen generator.

Source: Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation",
arXiv 2008.00951, sec. 3.

    s      [B,C,H,W]  input; x itself when inverting      x      [B,3,H,W]  target
    wp     [B,L,D]    codes                               x_hat  [B,3,H,W]  reconstruction

    wp    = w_avg + E(s)
    x_hat = G(wp)
    L     = l2 |x - x_hat|_2^2                                                   eq. 1
            + lpips LPIPS(x, x_hat)                                              eq. 2
            + w_norm |wp - w_avg|_2                                              eq. 3
            + id (1 - <R(x), R(x_hat)>)                                          eq. 4

The sum is eq. 5, its weights are `loss.<term>.weight`; a term may be swapped or added in the config
alone.

Differs from the released code in: the generator takes no weight gradients and validation uses its
stored noise; noise and data order are functions of (seed, images seen), so that a run can resume.
"""

from __future__ import annotations

from torch import Tensor

from ganinv.core.interface import Batch
from ganinv.loss.term import Losses
from ganinv.method.inverting import EncoderMethod


class PSp(EncoderMethod):
    """pSp; see the module. Arguments as `EncoderMethod`."""

    def step(self, x: Tensor, batch: Batch) -> None:
        """E descends L."""
        self.descend("E", self.loss_E, self.encoder_input(batch, x), x, batch["position"])

    def loss_E(self, s: Tensor, x: Tensor, position: Tensor) -> Losses:
        """L; name -> (weight, [B])."""
        wp = self.w_avg + self.E(s)  # [B,L,D]
        x_hat = self.model.render(wp, x.shape[-2:], self.noise, self.seeds("noise", position))
        return self.terms(x_hat=x_hat, x=x, wp=wp, w_avg=self.w_avg)
