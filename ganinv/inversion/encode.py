"""Inversion by the trained encoder alone: one forward pass, or an encoder's own refinements.

s  [B,C,H,W] input in [-1,1]     wp [B,L,D]: see `Model.encode`
"""

from __future__ import annotations

import torch

from ganinv.core.interface import Inversion, Target
from ganinv.inversion.model import Model


class Encode:
    """The encoder's own code.

    Args:
        model: E and G.
    """

    def __init__(self, *, model: Model) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, target: Target) -> Inversion:
        """The codes of what E reads of the targets."""
        return Inversion(wp=self.model.encode(target.s))
