"""What is known of a generator's W from samples: its mean and spread, and its whitened form P_N.

    w = mapping(z), z ~ N(0,I), samples of a fixed seed, never truncated; of a layer-wise mapping,
    every row is a sample

    w_avg [D]  mean of w                        w_std  sqrt(mean |w - w_avg|^2), one number
    p = (lrelu_5(w) - mu) C / sqrt(lambda)      P_N: mean 0 and variance 1 in every direction

lrelu_5, of slope 5 below zero, undoes the mapping's last leaky ReLU (slope 0.2), so that samples
are about Gaussian. mu [D], lambda [D] and C [D,D] are their mean and the eigenvalues and -vectors
of their covariance. Source: Zhu et al. (II2S), arXiv 2012.09036, sec. 3.2; used by BDInvert.

Differs from the released codes in: everything is float64; the covariance is symmetric, so `eigh`;
an eigenvalue counts as at least `floor` times the largest (released: none, and directions that W
never visits, of 1e-8 of the largest variance, rule the loss). The moments are kept, per file of a
generator, in $GANINV_CACHE.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.core.errors import WeightsError, config_error
from ganinv.core.safe.io import read_safetensors, write_safetensors
from ganinv.core.seed import generator_of
from ganinv.generator.importer.bundle import AnyGenerator

CHUNK = 10_000  # samples at a time
Moments = dict[str, Tensor]  # mean [D] and covariance [D,D] of w and of p, float64


@torch.no_grad()
def measure(G: AnyGenerator, samples: int) -> Moments:
    """The moments of `samples` codes.

    Raises:
        ConfigError: fewer than two samples; a conditional generator, whose W depends on a label.
    """
    if samples < 2:
        raise config_error(f"samples={samples}", "at least 2, better 10,000", "set it")
    if getattr(G, "c_dim", 0):
        raise config_error("a conditional generator", "one whose W depends on z alone",
                "use an unconditional generator")  # fmt: skip
    device, count = G.w_avg.device, 0
    mean = {name: torch.zeros(G.w_dim, dtype=torch.float64) for name in "wp"}
    square = {name: torch.zeros(G.w_dim, G.w_dim, dtype=torch.float64) for name in "wp"}
    for first in range(0, samples, CHUNK):
        random = generator_of("statistics of W", first)
        z = torch.randn(min(CHUNK, samples - first), G.z_dim, generator=random)
        w = G.mapping(z.to(G.w_avg)).reshape(-1, G.w_dim).cpu().double()
        count += len(w)
        for name, value in (("w", w), ("p", unfold(w))):
            mean[name] += value.sum(0)
            square[name] += value.t() @ value
    moments = {}
    for name in "wp":
        mu = mean[name] / count
        moments[f"mean_{name}"] = mu
        moments[f"covariance_{name}"] = square[name] / count - mu.outer(mu)
    return {name: value.to(device) for name, value in moments.items()}


def moments_of(G: AnyGenerator, samples: int) -> Moments:
    """As `measure`, from the cache where a generator's file (its sha256) was measured before."""
    sha256 = getattr(G, "sha256", None)
    if sha256 is None:
        return measure(G, samples)
    folder = Path(os.environ.get("GANINV_CACHE", "~/.cache/ganinv")).expanduser() / "statistics"
    path = folder / f"{sha256}-{samples}.safetensors"
    if path.is_file():
        try:
            found, _ = read_safetensors(path)
            if _sound(found, G.w_dim):
                return {name: value.to(G.w_avg.device) for name, value in found.items()}
        except WeightsError:
            pass  # cut short or of something else: measured again, and written over
    moments = measure(G, samples)
    write_safetensors(path, moments, {"generator_sha256": sha256, "samples": samples})
    return moments


def _sound(found: Moments, width: int) -> bool:
    shapes = {"mean_w": (width,), "mean_p": (width,)}
    shapes |= {"covariance_w": (width, width), "covariance_p": (width, width)}  # type: ignore[dict-item]
    return {n: tuple(v.shape) for n, v in found.items()} == shapes and all(
        v.dtype == torch.float64 and bool(v.isfinite().all()) for v in found.values()
    )


def unfold(w: Tensor) -> Tensor:
    """lrelu_5(w), the inverse of a leaky ReLU of slope 0.2."""
    return F.leaky_relu(w, 5.0)


def w_std(moments: Moments) -> float:
    """The root of the mean squared distance of w from its mean."""
    return float(moments["covariance_w"].diagonal().sum().clamp_min(0).sqrt())


@dataclass(frozen=True)
class Whitening:
    """w -> p, see the module."""

    mean: Tensor  # mu [D], float64
    matrix: Tensor  # C / sqrt(lambda) [D,D], float64

    @classmethod
    def of(cls, moments: Moments, floor: float) -> Whitening:
        """From moments; `floor`, in (0, 1], is the smallest eigenvalue as a part of the largest.

        Raises:
            ConfigError: a floor outside that range.
        """
        if not 0 < floor <= 1:
            raise config_error(
                f"floor={floor} for the eigenvalues of P_N", "above 0, at most 1", "set 1e-5"
            )
        values, vectors = torch.linalg.eigh(moments["covariance_p"].cpu())
        values = values.clamp_min(floor * values[-1])
        device = moments["mean_p"].device
        return cls(moments["mean_p"], (vectors / values.sqrt()).to(device))

    def __call__(self, w: Tensor) -> Tensor:
        """w [...,D] -> p [...,D], float64."""
        return (unfold(w.double()) - self.mean) @ self.matrix
