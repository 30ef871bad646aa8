"""ganinv: distributed training of GAN-inversion encoders on frozen StyleGANs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ganinv.interop.inverter import Inverter

__version__ = "0.1.0.dev0"


def load(
    bundle: str | Path, generator_weights: str | Path | None = None, device: str = "cpu"
) -> Inverter:
    """A trained encoder with its generator, from a file of `ganinv export --to safetensors`.

    `.encode(image [B,3,H,W] in [-1,1]) -> wp [B,L,D]`, `.decode(wp) -> image [B,3,R,R]`; see
    `ganinv/interop/bundle.py` for arguments and errors.
    """
    from ganinv.interop.bundle import load as load_bundle  # torch only when asked for

    return load_bundle(bundle, generator_weights, device)
