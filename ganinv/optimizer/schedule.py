"""Learning rates as functions of images seen."""

from __future__ import annotations

from typing import Any


def set_lr_factor(optimizer: Any, factor: float) -> None:
    """Set every group's rate to `factor` times the one it was made with.

    Args:
        optimizer: a torch optimizer or Lightning's wrapper of one; the first rate travels in its
            state, so that a resumed run scales the same number.
        factor: at least 0.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
