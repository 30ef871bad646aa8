"""ganinv: distributed training of GAN-inversion encoders on frozen StyleGANs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ganinv.inversion.model import Model

__version__ = "0.1.0"


def load(
    path: str | Path, generator_weights: str | Path | None = None, device: str = "cpu"
) -> Model:
    """An encoder with its generator, frozen, from any file that `ganinv invert` takes: a training
    checkpoint, a bundle, or pSp's, e4e's, ReStyle's own.

    `.encode(image [B,3,H,W] in [-1,1]) -> wp [B,L,D]`, `.render(wp) -> image [B,3,R,R]`; see
    `ganinv/evaluation/open.py` for arguments and errors.
    """
    from ganinv.evaluation.open import open_model  # torch only when asked for

    return open_model(path, generator_weights).model.to(device)
