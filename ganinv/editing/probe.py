"""Fits probes: ridge regression, by scikit-learn, of what is known of images on frozen features.

    h [N,F]  features, each of mean 0 and variance 1 over the training images (folded into the head)
    y        a number; of a yes or no, 1 or 0
    head     argmin |h weight + bias - y|^2 + alpha |weight|^2, alpha the best of `ALPHAS` on val

The accuracy is of the test split, on which nothing was chosen: AUC of a yes or no, R2 of a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganinv.backbone.probe import Head
from ganinv.core.errors import config_error
from ganinv.dataset.attributes import Records, values

ALPHAS = (10.0, 100.0, 1000.0, 10000.0)
FEW = 10  # images of the rarer side in the training split, below which nothing can be learnt


@dataclass(frozen=True)
class Split:
    """Features and what is known of N images."""

    features: Tensor  # [N,F]
    records: Records


def fit(
    train: Split, val: Split, test: Split, attributes: Sequence[str]
) -> tuple[list[Head], Tensor, Tensor]:
    """The heads, weight [A,F] and bias [A].

    Raises:
        ConfigError: an attribute that is not there, is text, or is the same in all images.
    """
    from sklearn.linear_model import Ridge

    known = [values(train.records, name) for name in attributes]
    for name, (column, kind) in zip(attributes, known, strict=True):
        check_both(name, column, kind)
    y = torch.stack([column for column, _ in known], 1).numpy()  # [N,A]
    mean, std = train.features.double().mean(0), train.features.double().std(0).clamp_min(1e-6)
    h = ((train.features - mean) / std).numpy()
    best = [(-np.inf, None, None)] * len(attributes)
    for alpha in ALPHAS:
        ridge = Ridge(alpha=alpha).fit(h, y)
        weight = torch.from_numpy(np.atleast_2d(ridge.coef_)) / std
        bias = torch.from_numpy(np.atleast_1d(ridge.intercept_)) - weight @ mean
        for i, (name, (_, kind)) in enumerate(zip(attributes, known, strict=True)):
            score = accuracy(val, weight[i], bias[i], name, kind)
            if best[i][1] is None or score > best[i][0]:
                best[i] = score, weight[i], bias[i]  # type: ignore[assignment]
    heads = [
        Head(name, kind, accuracy(test, best[i][1], best[i][2], name, kind))  # type: ignore[arg-type]
        for i, (name, (_, kind)) in enumerate(zip(attributes, known, strict=True))
    ]
    return heads, torch.stack([b[1] for b in best]), torch.stack([b[2] for b in best])  # type: ignore[misc]


def check_both(name: str, column: Tensor, kind: str) -> None:
    """Refuse what has one value only.

    Raises:
        ConfigError: nothing to tell apart.
    """
    often = column.unique(return_counts=True)[1]
    if len(often) < 2:
        raise config_error(
            f"the attribute {name}: one class only, {float(column[0]):g} in all {len(column)} "
            "training images", "images on both sides", "leave it out, or take a larger set",
        )  # fmt: skip
    if kind == "yes_no" and int(often.min()) < FEW:
        raise config_error(
            f"the attribute {name}: {int(often.min())} of {len(column)} training images on one "
            "side", f"at least {FEW}", "leave it out, or take a larger set",
        )  # fmt: skip


def accuracy(split: Split, weight: Tensor, bias: Tensor, name: str, kind: str) -> float:
    """AUC or R2; NaN counts as 0: a split without both sides says nothing for the probe."""
    from sklearn.metrics import r2_score, roc_auc_score

    truth = values(split.records, name)[0].numpy()
    if len(np.unique(truth)) < 2:
        return 0.0
    score = (split.features.double() @ weight + bias).numpy()
    return float(roc_auc_score(truth, score) if kind == "yes_no" else r2_score(truth, score))
