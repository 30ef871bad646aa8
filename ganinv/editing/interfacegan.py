"""InterFaceGAN: the hyperplane in W, or in each layer of W+, between two sides of an attribute.

Source: Shen et al., "Interpreting the Latent Space of GANs for Semantic Face Editing", arXiv
1907.10786, sec. 3; arXiv 2005.09635 for W and the conditional projection.

    scores [N] of codes w [N,D]    positives, negatives: the k highest and k lowest, k = ratio N
    n  normal of length 1 of the linear SVM (scikit-learn's SVC, C = 1) between them; w' = w + s n
    n | c_1 ... c_m = n less its part in span(c_i), of length 1                 conditional

Differs from the released code in: the intercept is kept, so that a boundary can be asked on which
side a code lies; k shrinks until the highest scores of the negatives lie below the lowest of the
positives; the split into 70 % and 30 % has a seed; W+ has a boundary of its own in each layer, the
form of IDInvert's files, whose fitting is not released; a strength of 1 is one standard deviation
of the codes along n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganinv.core.direction import Direction
from ganinv.core.errors import config_error
from ganinv.core.seed import generator_of

LEAST = 10  # codes on either side
TRAIN = 0.7  # share of them that the SVM sees
LOST = 1e-3  # of a normal's length, below which nothing is left of it


@dataclass(frozen=True)
class Sides:
    """Places of codes."""

    positive: Tensor
    negative: Tensor


def choose(scores: Tensor, ratio: float, name: str) -> Sides:
    """The codes with the highest and the lowest scores.

    Args:
        scores: [N].
        ratio: of each side; a share of N up to 1, above that a number of codes.
        name: of the attribute, for messages.

    Raises:
        ConfigError: one class only, or fewer than `LEAST` codes of one of them.
    """
    order = scores.argsort(descending=True, stable=True)
    k = min(int(ratio * len(scores)) if ratio <= 1 else int(ratio), len(scores) // 2)
    distinct = scores.unique()
    if len(distinct) < 2:
        raise config_error(
            f"{name}: one class only, {len(scores)} codes of the score {float(scores[0]):g}",
            "codes on both sides of the attribute", "take codes, or samples, that differ in it",
        )  # fmt: skip
    while k and not scores[order[k - 1]] > scores[order[len(order) - k]]:
        k -= 1
    if k < LEAST:
        raise config_error(
            f"{name}: {k} codes on each side", f"at least {LEAST}",
            "take more codes or samples, or a larger --ratio",
        )  # fmt: skip
    return Sides(order[:k], order[len(order) - k :])


def hyperplane(codes: Tensor, sides: Sides, seed: int) -> tuple[Tensor, float, float]:
    """codes [N,D] -> the normal [D], of length 1, the intercept, and the accuracy on the 30 % of
    the chosen codes that the SVM has not seen."""
    from sklearn.svm import SVC

    random = generator_of(seed, "boundary")
    seen, left = [], []
    for places in (sides.positive, sides.negative):
        mixed = places[torch.randperm(len(places), generator=random)]
        cut = int(TRAIN * len(places))
        seen.append(codes[mixed[:cut]])
        left.append(codes[mixed[cut:]])
    machine = SVC(kernel="linear").fit(torch.cat(seen).double().numpy(), _labels(seen))
    accuracy = machine.score(torch.cat(left).double().numpy(), _labels(left))
    normal = torch.from_numpy(np.array(machine.coef_[0]))
    length = float(normal.norm())
    return (normal / length).float(), float(machine.intercept_[0]) / length, float(accuracy)


def _labels(sides: list[Tensor]) -> np.ndarray:
    return np.concatenate(
        [np.full(len(side), label) for side, label in zip(sides, (1, 0), strict=True)]
    )


def boundary(
    codes: Tensor, scores: Tensor, *, name: str, ratio: float, seed: int, sha256: str | None
) -> Direction:
    """codes [N,D] of W or [N,L,D] of W+ and scores [N] -> their boundary.

    Args:
        codes: W or W+.
        scores: of the attribute; labels of 0 and 1 are scores too.
        name: of the attribute, and of the direction.
        ratio: see `choose`.
        seed: of the split.
        sha256: of the generator whose W it is.

    Raises:
        ConfigError: as `choose`; scores that are not one finite number a code.
    """
    if scores.shape != codes.shape[:1] or not bool(torch.isfinite(scores).all()):
        raise config_error(f"{name}: {len(scores)} scores for {len(codes)} codes",
                           "one finite number for each code", "correct the scores")  # fmt: skip
    sides = choose(scores, ratio, name)
    layers = codes.cpu().unsqueeze(1) if codes.ndim == 2 else codes.cpu()  # [N,L,D]
    parts = [hyperplane(layers[:, i], sides, seed) for i in range(layers.shape[1])]
    normals = torch.stack([normal for normal, _, _ in parts])  # [1 or L,D]
    along = (layers * normals).sum(2)  # [N,L]
    fitted = {
        "method": "interfacegan",
        "space": "w" if codes.ndim == 2 else "wp",
        "attribute": name,
        "codes": len(codes),
        "chosen": 2 * len(sides.positive),
        "accuracy": [accuracy for _, _, accuracy in parts],
        "strength 1": "one standard deviation of the codes across the boundary",
    }
    intercept = torch.tensor([b for _, b, _ in parts])
    return Direction(name, normals, None, float(along.std(0).mean()), intercept, sha256, fitted)


def project(direction: Direction, conditions: list[Direction]) -> Direction:
    """The direction with the parts along others taken out: moving along it does not cross these.

    It is no boundary any more: it has no intercept.

    Args:
        direction: n.
        conditions: c_1 ... c_m, of the same generator.

    Raises:
        ConfigError: nothing is left, or a condition of another width or number of layers.
    """
    rows, width = direction.vectors.shape
    for other in conditions:
        if other.vectors.shape[1] != width or len(other.vectors) not in (1, rows):
            raise config_error(
                f"the condition {other.name} of {list(other.vectors.shape)}",
                f"{[1, width]}" + (f" or {[rows, width]}" if rows > 1 else ""),
                "fit it in the same space of the same generator",
            )  # fmt: skip
    known = torch.stack([c.vectors.expand(rows, -1) for c in conditions], 1).double()  # [R,m,D]
    normals = direction.vectors.double()
    rest = []
    for n, c in zip(normals, known, strict=True):
        basis = torch.linalg.svd(c, full_matrices=False)  # c_i may nearly depend on each other
        basis_rows = basis.Vh[basis.S > 1e-6 * basis.S[0]]
        n = n - basis_rows.t() @ (basis_rows @ n)
        if float(n.norm()) < LOST:
            raise config_error(
                f"{direction.name} projected off {', '.join(c.name for c in conditions)}",
                "conditions that it is not made of", "leave one out",
            )  # fmt: skip
        rest.append(n / n.norm())
    fitted = dict(direction.fitted) | {"projected_off": [c.name for c in conditions]}
    return Direction(direction.name, torch.stack(rest).float(), direction.layers, direction.scale,
                     None, direction.generator_sha256, fitted)  # fmt: skip
