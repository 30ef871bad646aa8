"""BDInvert's base-code encoder: from a downscaled image to the feature map in the middle of G.

Source: Kang et al., "GAN Inversion for Out-of-Range Images with Geometric Transformations", arXiv
2108.08998, sec. 3.2.

    wp    [B,L,D]    codes of z ~ N(0,I), truncated: psi 0.7 on the first 8 layers
    I     [B,3,R,R]  G(wp), a sample: training needs no images
    I_low [B,3,8h,8h]  I at 8 px a cell               f     [B,C,h,h]  = E(I_low), the base code
    I_rec [B,3,R,R]  = G(f, wp): f replaces the features at h x h px, coarser RGB is dropped; only
                     the layers of wp above them matter, and they are the true ones

    L_enc = mse |I_rec - I|^2 + lpips LPIPS(I_rec, I) at 256 px or less                  sec. 3.2
    the rate falls to a tenth every `decay_every` images

Regressing f itself was tried in the paper, and hurts.

Differs from the released code in: images are made smaller by bicubic interpolation with
antialiasing (released: Lanczos, in 8 bits on the CPU), on both sides of LPIPS (released: its I_rec
without antialiasing), clamped to [-1,1] there (released: I_rec is not) and not enlarged there
(released: always 256 px). The dataset must be synthetic: no other has the codes of its images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Batch, Inversion
from ganinv.encoder.base_code import check_maps, scaled
from ganinv.loss.term import Losses
from ganinv.method.inverting import GRID_IMAGES, EncoderMethod
from ganinv.task.image import Image


def smaller(image: Tensor, side: int) -> Tensor:
    """[B,3,R,R] -> [B,3,side,side] in [-1,1], bicubic with antialiasing; larger never."""
    return image if image.shape[-1] <= side else scaled(image, side)


class BDInvert(EncoderMethod):
    """BDInvert's encoder training; see the module. Further arguments as `EncoderMethod`.

    Args:
        mse_weight: weight of the first term.
        perceptual_side: px to which both images are made smaller for the loss group's terms.
        decay_every: images in which the rate falls to a tenth.
    """

    inverts = False
    gives = ("x_hat", "x")

    def __init__(
        self, *, mse_weight: float, perceptual_side: int, decay_every: int, **rest: Any
    ) -> None:
        super().__init__(start_from_w_avg=False, **rest)
        if type(self.task) is not Image:
            raise ConfigError(
                explain(
                    f"method=bdinvert with the task {type(self.task).__name__}",
                    "task=image: f is the base code of the very image that G made",
                    "leave task out",
                )
            )
        check_maps(
            self.E, self.G.synthesis, "set encoder.side and encoder.channels, or choose another "
            "generator=..."
        )  # fmt: skip
        self.mse_weight, self.perceptual_side = mse_weight, perceptual_side
        self.decay_every = decay_every

    def images(self, batch: Batch) -> Tensor:
        """I [B,3,R,R] at G's own size.

        Raises:
            ConfigError: the dataset has images, but no codes.
        """
        if "synthetic" not in batch:
            raise ConfigError(
                explain(
                    "method=bdinvert with a dataset of images",
                    "dataset=synthetic: it needs the codes of its images",
                    "leave dataset out, or set dataset=synthetic",
                )
            )
        with torch.no_grad():
            return self.G.synthesis(self.model.sample(batch, self.seed), noise="const")

    def schedule(self, player: str) -> float:
        """A tenth every `decay_every` images."""
        return float(0.1 ** (self.images_seen // self.decay_every))

    def step(self, x: Tensor, batch: Batch) -> None:
        """E descends L_enc."""
        wp = self.model.sample(batch, self.seed)  # the codes that x was made of
        self.descend("E", self.loss_enc, x, wp)

    def loss_enc(self, image: Tensor, wp: Tensor) -> Losses:
        """L_enc; name -> (weight, [B])."""
        f = self.base_code(image)  # [B,C,h,h]
        rebuilt = self.model.render(Inversion(wp, f=f), noise=self.noise)
        mse = (rebuilt - image).square().mean((1, 2, 3))
        side = self.perceptual_side
        terms = self.terms(x_hat=smaller(rebuilt, side), x=smaller(image, side))
        return {"mse": (self.mse_weight, mse)} | terms

    def base_code(self, image: Tensor) -> Tensor:
        """I [B,3,R,R] -> f [B,C,h,h]."""
        side: int = self.E.input_size[0]  # type: ignore[index, assignment]
        f: Tensor = self.E(scaled(image, side))
        return f

    def validate(self, batch: Batch, batch_idx: int) -> None:
        """L_enc of other samples; the first ones are drawn."""
        x, wp = self.images(batch), self.model.sample(batch, self.seed)
        self.accumulate_validation(self.loss_enc(x, wp))
        if batch_idx == 0:
            x_hat = self.model.render(Inversion(wp, f=self.base_code(x)), noise=self.noise)
            self.grid = self.draw([x[:GRID_IMAGES], x_hat[:GRID_IMAGES]])

    def next_commands(self, checkpoint: str) -> list[str]:
        """None: f alone is no inversion, so evaluate.py cannot open it."""
        return []
