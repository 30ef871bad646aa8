"""SeFa: the directions of W that change the styles of some layers most, in closed form.

Source: Shen & Zhou, "Closed-Form Factorization of Latent Semantics in GANs", arXiv 2007.06600,
sec. 3.2.

    style_l = A_l w + b_l     A [C,D]  the A_l of the chosen layers, one under the other
    n_1 ... n_k = argmax over orthonormal n of sum_i |A n_i|^2: the eigenvectors of A^T A

Differs from the released code in: rows of A have the length that they have, as in the paper;
`normalise` makes it 1, as the released code does; a strength of 1 is one standard deviation of W
along the direction, not a step of length 1; the sign, which means nothing, makes the largest entry
positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganinv.core.direction import Direction
from ganinv.core.errors import config_error
from ganinv.core.interface import Inversion
from ganinv.core.op.dense import Dense
from ganinv.editing.direction import move, signed
from ganinv.editing.samples import spread
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator

SAMPLES = 10_000  # of W, for the length of a step


def affine(G: AnyGenerator, layer: int) -> Dense:
    """A_l and b_l: how layer `layer` of wp becomes a style. Of StyleGAN2 that of a convolution, but
    for the last layer, which an RGB output alone reads; of StyleGAN3's layer 0 that of its input.
    """
    S: Any = G.synthesis
    if isinstance(G, StyleGANGenerator):
        block = getattr(S, f"b{S.block_sizes[layer // 2]}")
        found: Dense = (block.layer1 if layer % 2 else block.layer0).affine
    elif isinstance(G, StyleGAN2Generator):
        last = layer == G.num_ws - 1
        block = getattr(S, f"b{G.resolution if last else S.block_sizes[(layer + 1) // 2]}")
        found = (block.torgb if last else block.conv0 if layer % 2 else block.conv1).affine
    else:
        found = (getattr(S, S.layer_names[layer - 1]) if layer else S.input).affine
    return found


def factorise(A: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A [C,D] -> the first eigenvectors of A^T A [K,D], and their eigenvalues [K], descending."""
    values, vectors = torch.linalg.eigh(A.double().t() @ A.double())
    vectors = vectors.flip(1)[:, :count].t()
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * largest.sign()).float(), values.flip(0)[:count].float()


@torch.no_grad()
def sefa(
    G: AnyGenerator, *, layers: Sequence[int] | None, count: int, normalise: bool, seed: int = 0
) -> list[Direction]:
    """The first directions, named "0", "1", ...; they move the layers that they are found in.

    Args:
        G: StyleGAN 1, 2 or 3.
        layers: of wp; None: all.
        count: how many directions.
        normalise: rows of A of length 1, so that every channel counts alike.
        seed: of the samples of W that give a step its length.

    Raises:
        ConfigError: a layer that is not there, or more directions than W has.
    """
    chosen = list(range(G.num_ws)) if layers is None else sorted(set(layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= G.num_ws:
        raise config_error(f"layers {chosen}", f"layers from 0 to {G.num_ws - 1}", "name others")
    if not 1 <= count <= G.w_dim:
        raise config_error(
            f"{count} directions", f"1 to {G.w_dim}, the width of W", "ask for fewer"
        )
    affines = [affine(G, layer) for layer in chosen]
    A = torch.cat([a.weight * a.weight_gain for a in affines])  # [C,D]
    if normalise:
        A = A / A.norm(dim=1, keepdim=True).clamp_min(1e-12)
    vectors, values = factorise(A, count)
    scales = spread(G, vectors, SAMPLES, seed)
    fitted = {
        "method": "sefa",
        "layers": chosen,
        "normalise": normalise,
        "eigenvalues": values.tolist(),
        "strength 1": "one standard deviation of W along the direction",
    }
    return [
        Direction(str(k), vectors[k : k + 1], tuple(chosen), scales[k], None, G.sha256, fitted)
        for k in range(count)
    ]


class SeFa:
    """An edit of `evaluate.py`: along one direction of the generator's own.

    Args:
        component: 0 for the first.
        wp_layers: that it is found in and moves; None: all.
        normalise: see `sefa`.
        strengths: that are shown, in standard deviations of W.
        generator: G of the codes.
    """

    needs_f, sha256 = False, None

    def __init__(
        self,
        *,
        component: int,
        wp_layers: Sequence[int] | None,
        normalise: bool,
        strengths: Sequence[float],
        generator: AnyGenerator,
    ) -> None:
        found = sefa(generator, layers=wp_layers, count=component + 1, normalise=normalise)
        self.direction, self.strengths = found[component], list(strengths)

    def __call__(self, found: Inversion, strength: float | Tensor) -> Inversion:
        """Moved that far, see `move`."""
        return move(found, self.direction, strength)

    def label(self, strength: float) -> str:
        """Above a strip."""
        return signed(strength)
