"""Floating-point operations of a training step, counted once, and a device's peak."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric.utilities.throughput import get_available_flops
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

COUNTED = 1  # the step of a run that is counted: the first one has every lazy term in it


class Flops(TorchDispatchMode):
    """Counts those of matrix products and convolutions, forward and backward, within a block.

    torch's FlopCounterMode also follows modules, which gradient penalties defy. Neither sees into
    compiled code.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and add its own."""
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += 0 if count is None else count(*args, **(kwargs or {}), out_val=out)
        return out


def peak_of(device: torch.device, precision: str) -> float | None:
    """What the maker says that a device can reach, FLOP/s; None where Lightning does not know it.

    Args:
        device: where the run computes.
        precision: Lightning's name of the run's.
    """
    if device.type != "cuda":
        return None
    kind = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    found = get_available_flops(device, kind)
    return None if found is None else float(found)
