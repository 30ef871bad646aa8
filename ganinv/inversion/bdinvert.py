"""BDInvert: out-of-range images through a feature map in the middle of G, near a trained base code.

Source: Kang et al., "GAN Inversion for Out-of-Range Images with Geometric Transformations", arXiv
2108.08998, sec. 3; constants of kkang831/BDInvert_Release.

    x    [B,3,R,R]   image, also shifted, rotated or scaled as no training image is
    f    [B,C,h,h]   starts at f_0 = E(x at 8 px a cell), the base code (`method=bdinvert` trains E)
    wp_i i >= M      starts at w_avg; layers below M = 2 log2(h) - 4 are not read, so they stay
    p    whitened    P_N: `statistics.py`

    L = mse |G(f, wp) - x|^2 + perceptual d(G(f, wp), x) + base mean (f - f_0)^2 + p_norm mean p^2

Differs from the released code in: layers below M neither move nor count in p_norm (released: they
are drawn to the mean, and make it small); eigenvalues have a floor; x is scaled by bicubic
interpolation with antialiasing (released: Lanczos in 8 bits); d compares images that were averaged
down alike (released: the target by Lanczos, the other by bicubic without antialiasing). The paper's
hard clip of p is the released L2 penalty here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganinv.core.command import entry
from ganinv.core.errors import ConfigError, WeightsError, explain, named
from ganinv.core.interface import Inversion, Target
from ganinv.core.network import filled, refused_as_malformed
from ganinv.core.safe.io import load_tensors
from ganinv.encoder.base_code import BaseCodeEncoder, check_maps, scaled
from ganinv.generator.stylegan3 import StyleGAN3Generator
from ganinv.inversion.likeness import Likeness
from ganinv.inversion.optimise import Known, Leaves, Optimise
from ganinv.inversion.start import Start, check_start, starting_point
from ganinv.inversion.statistics import Whitening, moments_of
from ganinv.loss.term import Term

SETTINGS = ("side", "channels", "input_nc", "channel_base", "channel_max")
TRAIN = (
    f"{entry('train')} method=bdinvert with the same generator, then "
    "inversion.bdinvert.base_code=CHECKPOINT"
)


class BDInvert(Optimise):
    """See the module. Further arguments as `Optimise`.

    Args:
        base_code: the checkpoint of a `method=bdinvert` training on the same generator.
        start: of wp: "w_avg", "random" or another method, whose own f is not used.
        mse_weight: weight of the first term.
        perceptual: d, a term on images.
        perceptual_weight: weight of the second.
        perceptual_side: px of the longer side at which d looks, None for no limit.
        base_weight: weight of the third.
        p_norm_weight: weight of the last.
        samples: of W, for P_N.
        floor: of P_N's eigenvalues, as a part of the largest.
    """

    def __init__(
        self,
        *,
        base_code: str | None,
        start: Start,
        mse_weight: float,
        perceptual: Term,
        perceptual_weight: float,
        perceptual_side: int | None,
        base_weight: float,
        p_norm_weight: float,
        samples: int,
        floor: float,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_start(start, self.model, "start")
        self.E = base_code_encoder(base_code, self.model.G).to(self.model.G.w_avg)
        self.first_row = 2 * int(math.log2(self.E.side)) - 4  # M
        self.begin, self.likeness = start, Likeness(perceptual, perceptual_side)
        self.factors = {"mse": mse_weight, "perceptual": perceptual_weight}
        self.factors |= {"base": base_weight, "p_norm": p_norm_weight}
        self.whiten = Whitening.of(moments_of(self.model.G, samples), floor)

    def check(self, target: Target) -> None:
        """Also refuse images smaller than G's, which E would have to be given larger."""
        super().check(target)
        height, width = target.x.shape[-2:]
        side = min(self.E.input_size[0], self.model.G.resolution)
        if height != width or height < side:
            raise ConfigError(
                explain(f"images of {height} x {width} px for a base code of {self.E.side} cells",
                        f"square images of at least {side} px", "use larger images")
            )  # fmt: skip

    def base_code(self, x: Tensor) -> Tensor:
        """x [B,3,R,R] -> f_0 [B,C,h,h]."""
        f: Tensor = self.E.to(x.device)(scaled(x, self.E.input_size[0]))
        return f

    @torch.no_grad()
    def start(self, target: Target) -> tuple[Leaves, Known]:
        """The base code, and the layers from M on of where wp starts."""
        wp = starting_point(self.begin, target, self.model).wp
        f = self.base_code(target.x)
        known = self.likeness.remember(target)
        known |= {"base": f, "below": wp[:, : self.first_row].clone()}
        return {"wp": wp[:, self.first_row :], "f": f}, known

    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """wp with the layers below M as they began, and f."""
        return Inversion(wp=torch.cat([known["below"], leaves["wp"]], 1), f=leaves["f"])

    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """mse, perceptual, base and p_norm."""
        values = self.likeness(target, known, image)
        values["base"] = (leaves["f"] - known["base"]).square().mean((1, 2, 3))
        values["p_norm"] = self.whiten(leaves["wp"]).square().mean((1, 2)).to(image.dtype)
        return values

    def weights(self) -> Mapping[str, float]:
        """Of the four terms."""
        return self.factors


def base_code_encoder(checkpoint: str | None, G: Any) -> BaseCodeEncoder:
    """E of a `method=bdinvert` checkpoint, frozen, in eval mode (its batch norm must not see the
    batch), for the generator G.

    Raises:
        ConfigError: no checkpoint; a generator without f, or with other maps than E makes.
        WeightsMissing, WeightsError: unreadable, of another method, or of another generator.
    """
    if isinstance(G, StyleGAN3Generator):
        raise ConfigError(
            explain("bdinvert on a StyleGAN3, whose layers fix no positions",
                    "a StyleGAN (v1) or StyleGAN2, which have a feature map f",
                    "leave bdinvert out, or take such a generator")
        )  # fmt: skip
    if checkpoint is None:
        raise ConfigError(
            explain("bdinvert without base_code", "the checkpoint of a base-code encoder", TRAIN)
        )
    content = load_tensors(checkpoint)
    with refused_as_malformed(checkpoint, "base-code encoder"):
        return _base_code_encoder(content, checkpoint, G)


def _base_code_encoder(content: Any, checkpoint: str, G: Any) -> BaseCodeEncoder:
    ours = content.get("ganinv") if isinstance(content, dict) else None
    node = (ours or {}).get("config", {}).get("encoder") or {}
    if str(node.get("_target_", "")).rpartition(".")[2] != BaseCodeEncoder.__name__:
        raise WeightsError(
            explain(f"{checkpoint}, which holds no base-code encoder",
                    "the checkpoint of a method=bdinvert training", TRAIN)
        )  # fmt: skip
    trained_on = (ours or {}).get("generator_sha256")
    if trained_on is not None and trained_on != getattr(G, "sha256", None):
        raise WeightsError(
            explain(f"{checkpoint}, trained on a generator with sha256 {named(trained_on[:12])}...",
                    f"{str(getattr(G, 'sha256', None))[:12]}..., the generator here", TRAIN)
        )  # fmt: skip
    settings = {name: node.get(name) for name in SETTINGS}
    state = {k[2:]: v for k, v in content.get("state_dict", {}).items() if k.startswith("E.")}
    encoder = filled(BaseCodeEncoder, settings, state, str(checkpoint))
    check_maps(encoder, G.synthesis, TRAIN)
    return encoder.eval().requires_grad_(False)
