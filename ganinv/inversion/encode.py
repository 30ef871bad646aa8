"""Inversion by the trained encoder alone: one forward pass.

s  [B,C,H,W] input in [-1,1]     wp [B,L,D] = E(s) (+ w_avg)     x_hat [B,3,H,W] = G(wp)
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ganinv.core.interface import Inversion, Noise


class Model(Protocol):
    """A trained method with an encoder and a generator."""

    def encode(self, s: Tensor) -> Tensor:
        """s [B,C,H,W] -> wp [B,L,D]."""
        ...

    def decode(self, wp: Tensor, size: torch.Size, noise: Noise, seeds: list[int] | None) -> Tensor:
        """wp [B,L,D] -> x_hat [B,3,*size]."""
        ...


class Encode:
    """The encoder's own code.

    Args:
        model: the trained method.
    """

    def __init__(self, *, model: Model) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, s: Tensor, size: torch.Size) -> Inversion:
        """s [B,C,H,W] in [-1,1] -> codes, and their images of `size` px with the stored noise."""
        wp = self.model.encode(s)
        return Inversion(wp=wp, image=self.model.decode(wp, size, "const", None))
