"""pSp: an encoder into W+, trained by reconstruction through a frozen generator.

Source: Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation",
arXiv 2008.00951, sec. 3.

    s      [B,C,H,W]  input; x itself when inverting      x      [B,3,H,W]  target
    wp     [B,L,D]    codes                               x_hat  [B,3,H,W]  reconstruction

    wp    = E(s) + w_avg                                                         eq. 1
    x_hat = G(wp)
    L     = l2 |x - x_hat|_2^2 + lpips LPIPS(x, x_hat) + id (1 - <R(x), R(x_hat)>)
            + w_norm |wp - w_avg|_2                                              eq. 2-6

The weights are `loss.<term>.weight`; a term may be swapped or added in the config alone.

Differs from the released code in: the generator takes no weight gradients and validation uses its
stored noise; noise and data order are functions of (seed, images seen), so that a run can resume.
"""

from __future__ import annotations

from torch import Tensor

from ganinv.core.interface import Batch
from ganinv.method.inverting import EncoderMethod


class PSp(EncoderMethod):
    """pSp; see the module. Arguments as `EncoderMethod`."""

    def step(self, x: Tensor, batch: Batch) -> None:
        """E descends L."""
        s, position = self.encoder_input(batch, x), batch["position"]
        with self.play("E"):
            chunks = self.chunks(s, x, position)
            self.descend("E", (loss for chunk in chunks for loss in self.losses_E(*chunk)))

    def loss_E(self, s: Tensor, x: Tensor, position: Tensor) -> Tensor:
        """L, the mean over the images of a chunk."""
        wp = self.encode(s)  # [B,L,D]
        x_hat = self.model.render(wp, x.shape[-2:], self.noise, self.seeds("noise", position))
        values = self.terms.image(x_hat, x) | self.terms.latent(wp, self.G.w_avg)  # name -> [B]
        return self.log_and_sum(values)

    def validate_codes(self, wp: Tensor) -> dict[str, Tensor]:
        """|wp - w_avg|_2."""
        return self.terms.latent(wp, self.G.w_avg)
