"""Style mixing: layers of a code replaced by those of another, for several outputs of one input.

Source: Karras et al., arXiv 1812.04948, sec. 3.1; for image-to-image tasks Richardson et al., arXiv
2008.00951, sec. 4.3: the coarse layers keep what the input says, the fine ones are drawn.

    wp [B,L,D], other [B,L,D] or [B,D]    wp_i <- (1 - alpha) wp_i + alpha other_i   for i in layers
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from ganinv.core.latent import repeat_w


def mix(wp: Tensor, other: Tensor, layers: Collection[int], alpha: float = 1.0) -> Tensor:
    """wp [B,L,D] with `layers` moved by `alpha` towards `other` ([B,L,D], or w [B,D] for all).

    Raises:
        ValueError: a layer that is not there.
    """
    if bad := [i for i in layers if not 0 <= i < wp.shape[1]]:
        raise ValueError(f"layers {bad} of a wp of {wp.shape[1]} layers")
    other = repeat_w(other, wp.shape[1])
    mixed = wp.clone()
    chosen = sorted(set(layers))
    mixed[:, chosen] = wp[:, chosen].lerp(other[:, chosen], alpha)
    return mixed


def crossover(first: Tensor, second: Tensor, layers: Collection[int]) -> tuple[Tensor, Tensor]:
    """Two wp [B,L,D] with `layers` exchanged: each has its own layers but these.

    Source: Abdal et al. (Image2StyleGAN), arXiv 1904.03189, sec. 5.2, who call it style transfer
    where the layers are the fine ones.

    Raises:
        ValueError: a layer that is not there.
    """
    return mix(first, second, layers), mix(second, first, layers)
