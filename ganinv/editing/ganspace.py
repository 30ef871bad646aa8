"""GANSpace: the principal components of W.

Source: Härkönen et al., "GANSpace: Discovering Interpretable GAN Controls", arXiv 2004.02546,
sec. 3.1: PCA of N samples of w; a component may be applied to some layers only.

    C = mean (w - mu)(w - mu)^T = V diag(lambda) V^T     direction k: column k of V
    strength s moves by s sqrt(lambda_k): standard deviations

Differs from the released code in: the exact covariance in float64 instead of incremental PCA; a
strength is counted from the code, not from the mean of W; the sign, which means nothing, makes the
largest entry positive.
"""

from __future__ import annotations

import torch

from ganinv.core.direction import Direction
from ganinv.core.errors import config_error
from ganinv.editing.samples import sample_w
from ganinv.generator.importer.bundle import AnyGenerator

NOTHING = 1e-10  # of the largest variance: rounding


def ganspace(G: AnyGenerator, *, samples: int, count: int, seed: int = 0) -> list[Direction]:
    """The first components, named "0", "1", ...; each moves all layers.

    Args:
        G: an unconditional generator.
        samples: N; the paper has 1,000,000.
        count: how many components.
        seed: of the samples.

    Raises:
        ConfigError: more components than W has, too few samples, a conditional generator.
    """
    if not 1 <= count <= G.w_dim:
        raise config_error(
            f"{count} components", f"1 to {G.w_dim}, the width of W", "ask for fewer"
        )
    mean = torch.zeros(G.w_dim, dtype=torch.float64)
    square = torch.zeros(G.w_dim, G.w_dim, dtype=torch.float64)
    for w in sample_w(G, samples, seed):
        centred = (w - G.w_avg).cpu().double()  # near its mean, so that nothing cancels
        mean += centred.sum(0) / samples
        square += centred.t() @ centred / samples
    values, vectors = torch.linalg.eigh(square - mean[:, None] * mean)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1).t()
    vectors = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
    there = values > NOTHING * values[0]
    if not there[count - 1]:
        raise config_error(f"{count} components", f"at most {int(there.sum())}, those along "
                           f"which {samples} samples differ", "ask for fewer")  # fmt: skip
    fitted = {
        "method": "ganspace",
        "samples": samples,
        "seed": seed,
        "share_of_variance": (values[:count] / values.sum()).tolist(),
        "strength 1": "one standard deviation of W along the component",
    }
    return [
        Direction(str(k), vectors[k : k + 1].float(), None, float(values[k].sqrt()), None,
                  G.sha256, fitted)
        for k in range(count)
    ]  # fmt: skip
