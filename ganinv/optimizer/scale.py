"""Larger batches: what Adam and Ranger must change so that an image moves the weights as before.

Source: Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", arXiv
2205.10287, the square root scaling rule.

    k       batch of all processes / batch that the numbers were tuned for
    lr   <- sqrt(k) lr          betas <- 1 - k (1 - betas)          eps <- eps / sqrt(k)

The averages then remember as many images as before, not as many steps; Ranger's rectification, a
warm-up over 2 / (1 - beta2) steps, lasts as many images, too. A beta that would be negative is 0:
from there on the rule does not hold any more; what was tried is in docs/LOG.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

Factory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SCALED = ("lr", "betas", "eps")


def scaled(make: Factory, k: float) -> Factory:
    """The factory of the same optimizer for a k times larger batch."""

    def made(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = make(parameters)
        for numbers in (optimizer.defaults, *optimizer.param_groups):
            numbers["lr"] *= math.sqrt(k)
            if "betas" in numbers:
                numbers["betas"] = tuple(max(0.0, 1 - k * (1 - beta)) for beta in numbers["betas"])
            if "eps" in numbers:
                numbers["eps"] /= math.sqrt(k)
        return optimizer

    return made


def renew(optimizer: torch.optim.Optimizer) -> None:
    """Let the config's numbers count, not those that a checkpoint brought along: a resumed run may
    have another batch, or another rate."""
    for group in optimizer.param_groups:
        for name in SCALED:
            if name in optimizer.defaults:
                group[name] = optimizer.defaults[name]
        if "initial_lr" in group:
            group["initial_lr"] = optimizer.defaults["lr"]
