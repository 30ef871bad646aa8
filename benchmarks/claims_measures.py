"""What claims are measured by: differences over the same images, of codes and of tuned weights.

distance to W     of the layers of wp from their mean, and of that mean from samples of W
softplus(-D)      how real the generator's own discriminator finds G(wp); the lower, the more
midpoints         (wp_i + wp_j) / 2 of all pairs of faces; a face's number is the mean over its
                  pairs, so that faces, not pairs, are what is resampled
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from claims_page import Measured
from claims_runs import ROOT, Rows
from torch import Tensor

from ganinv.backbone.efficientnet_lite0 import efficientnet_lite0
from ganinv.config.inversions import build_inversions
from ganinv.core.interface import Inversion, Target
from ganinv.core.latent import repeat_w
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer.load import load_discriminator, load_generator
from ganinv.inversion.model import Model
from ganinv.loss.perceptual import Perceptual
from ganinv.metric.bootstrap import around, interval
from ganinv.metric.fid import FID_DRAWS, frechet

GENERATOR = "stylegan2_avatars64"
SAMPLES = 64  # of the generator, whose change by tuning is measured


def compared(what: str, preferred: Sequence[float], other: Sequence[float]) -> Measured:
    """Numbers of the same images [N], lower is better."""
    a, b = torch.tensor(preferred).double(), torch.tensor(other).double()
    low, high = interval(lambda d: float(d.mean()), a - b)
    return Measured(what, float(a.mean()), float(b.mean()), low, high, len(a))


def between(
    words: str, column: str, preferred: tuple[Rows, str], other: tuple[Rows, str], sign: int = 1
) -> Measured:
    """A column of two inversion methods, over the images that both have; sign -1: higher is
    better."""
    a, b = preferred[0][preferred[1]], other[0][other[1]]
    keys = sorted(set(a) & set(b))
    return compared(words, [sign * a[k][column] for k in keys], [sign * b[k][column] for k in keys])


def apart(
    what: str,
    preferred: dict[str, float],
    other: dict[str, float],
    column: str,
    sign: int = 1,
) -> Measured:
    """Two columns with intervals of their own, as of independent images: wider than of the same;
    sign -1: higher is better."""
    a, b = sign * preferred[column], sign * other[column]
    halves = [(row[f"{column}_high"] - row[f"{column}_low"]) / 2 for row in (preferred, other)]
    half = math.hypot(*halves)
    return Measured(what, a, b, a - b - half, a - b + half, int(preferred["images"]))


# ------------------------------------------------------------------ codes


def distance_to_w(wp: Tensor) -> list[float]:
    """How far the layers of each code [N,L,D] are from their mean, as a root of mean squares."""
    return (wp - wp.mean(1, keepdim=True)).square().mean((1, 2)).sqrt().tolist()


@torch.no_grad()
def distance_to_samples(wp: Tensor) -> list[float]:
    """Mahalanobis distance of the mean layer of each code to W, over 10,000 samples of it."""
    G = load_generator(weights=GENERATOR, resolution=64, kind=None, origin=None)
    z = torch.randn(10_000, G.z_dim, generator=torch.Generator().manual_seed(0))
    w = G.mapping(z)
    covariance = torch.cov(w.T.double()) + 1e-5 * torch.eye(w.shape[1], dtype=torch.float64)
    away = wp.mean(1).double() - w.mean(0)
    solved = torch.linalg.solve(covariance, away.T).T
    return ((away * solved).sum(1) / wp.shape[2]).sqrt().tolist()


def critic() -> StyleGAN2Discriminator:
    """The D that was trained with the generator."""
    D: StyleGAN2Discriminator = load_discriminator(weights=GENERATOR, origin=None).build(
        StyleGAN2Discriminator
    )
    return D.eval()


@torch.no_grad()
def unreal(wp: Tensor) -> list[float]:
    """softplus(-D(G(wp))) of codes [N,L,D]: the lower, the more real D finds their images. By
    itself, since D compares the images of a batch."""
    G = load_generator(weights=GENERATOR, resolution=64, kind=None, origin=None)
    D = critic()
    images = torch.cat([G.synthesis(part, noise="const") for part in wp.split(32)])
    return [float(F.softplus(-D(image[None]))) for image in images]


# ------------------------------------------------------------------ midpoints


def pairs(count: int) -> Tensor:
    """All i < j, [2,P]."""
    return torch.triu_indices(count, count, offset=1)


def per_face(values: Tensor, count: int) -> list[float]:
    """Numbers of all pairs [P] -> the mean over each face's pairs."""
    both = torch.zeros(count, count, dtype=torch.float64)
    i, j = pairs(count)
    both[i, j] = both[j, i] = values.double()
    return (both.sum(1) / (count - 1)).tolist()


@torch.no_grad()
def midpoint_features(wp: Tensor) -> Tensor:
    """Lite0's features [P,F] of G at the midpoints of all pairs of codes [N,L,D]."""
    G = load_generator(weights=GENERATOR, resolution=64, kind=None, origin=None)
    network, (i, j) = efficientnet_lite0(weights=None), pairs(len(wp))
    parts = [G.synthesis(part, noise="const") for part in ((wp[i] + wp[j]) / 2).split(32)]
    return torch.cat([network.features(part.clamp(-1, 1)) for part in parts]).double()


def fid_of_midpoints(what: str, preferred: Tensor, other: Tensor, real: Tensor) -> Measured:
    """FIDs of two methods' midpoints [P,F] of the same N faces to other faces [M,F]; faces are
    resampled, and of a resampled set those pairs count whose faces differ."""
    count = round((1 + math.sqrt(1 + 8 * len(preferred))) / 2)
    place = torch.zeros(count, count, dtype=torch.long)
    i, j = pairs(count)
    place[i, j] = place[j, i] = torch.arange(len(preferred))

    def difference(drawn: Tensor) -> float:
        a, b = drawn[pairs(len(drawn))]
        rows = place[a[a != b], b[a != b]]
        return frechet(real, preferred[rows]) - frechet(real, other[rows])

    first, second = frechet(real, preferred), frechet(real, other)
    low, high = around(first - second, difference, [count], draws=FID_DRAWS)
    return Measured(what, first, second, low, high, count)


# ------------------------------------------------------------------ per-image methods


@torch.no_grad()
def found_by(method: str, model: Model, target: Target, words: Sequence[str]) -> Inversion:
    """The method's result with words of conf/inversion changed."""
    from hydra import compose, initialize_config_dir

    overrides = ["checkpoint=given", f"inversion=[{method}]", *words]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", overrides=overrides)
    with torch.enable_grad():
        found: Inversion = build_inversions(cfg.inversion, model)[method](target)
    return found


@torch.no_grad()
def samples_moved(model: Model, found: Inversion) -> list[float]:
    """For each of the tuned generators, the mean Lite0 distance of samples to G's own."""
    distance = Perceptual(weight=1.0, backbone=efficientnet_lite0(weights=None))
    z = torch.randn(SAMPLES, model.G.z_dim, generator=torch.Generator().manual_seed(1))
    wp = repeat_w(model.G.mapping(z), model.G.num_ws)
    before, means = model.render(Inversion(wp)), []
    assert found.weights is not None
    for i in range(len(found.wp)):
        weights = {name: change[i : i + 1].expand(SAMPLES, *change.shape[1:])
                   for name, change in found.weights.items()}  # fmt: skip
        after = model.render(Inversion(wp, weights=weights))
        means.append(float(distance(after, before).mean()))
    return means
