"""Larger batches: what Adam and Ranger must change so that an image moves the weights as before.

Source: Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", arXiv
2205.10287, the square root scaling rule.

    k       batch of all processes / batch that the numbers are meant for (`reference_batch_size`)
    q       min(k, 4)
    lr   <- sqrt(q) lr      beta1 <- 1 - q (1 - beta1)      eps <- eps / sqrt(q)
    beta2 <- 1 - k (1 - beta2), not below 0.9 (or what it was)

The averages then remember as many images as before, not as many steps; Ranger's rectification, a
warm-up over 2 / (1 - beta2) steps, lasts as many images, too. Differs from the paper in q, which is
k there: at k = 16 the whole rule diverged here, at twice the rate it held (docs/LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

Factory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SCALED = ("lr", "betas", "eps")
FARTHEST = 4.0  # q at most
SHORTEST = 0.9  # beta2 at least: ten steps


def scale_for_batch(make: Factory, k: float) -> Factory:
    """The factory of the same optimizer for a k times larger batch, k > 0."""
    q = min(k, FARTHEST)

    def made(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = make(parameters)
        for numbers in (optimizer.defaults, *optimizer.param_groups):
            numbers["lr"] *= math.sqrt(q)
            if "betas" in numbers:
                beta1, beta2 = numbers["betas"]
                numbers["betas"] = (
                    max(0.0, 1 - q * (1 - beta1)),
                    max(min(SHORTEST, beta2), 1 - k * (1 - beta2)),
                )
            if "eps" in numbers:
                numbers["eps"] /= math.sqrt(q)
        return optimizer

    return made


def restore_config_hparams(optimizer: torch.optim.Optimizer) -> None:
    """Let the config's numbers count, not those that a checkpoint brought along: a resumed run may
    have another batch, or another rate."""
    for group in optimizer.param_groups:
        for name in (*SCALED, "fused"):
            if name in optimizer.defaults:
                group[name] = optimizer.defaults[name]
        if "initial_lr" in group:
            group["initial_lr"] = optimizer.defaults["lr"]
