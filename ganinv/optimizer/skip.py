"""A step that its optimizer leaves out where a number on the device says so: nobody waits for it.

`skip` [] is what GradScaler calls found_inf: 1 where a gradient is NaN or Inf. An optimizer that
takes it, torch's fused ones and Ranger, then moves neither weights nor moments, without the CPU
ever knowing. For any other the number is read, and the CPU waits for the device at every step; so
it is on Apple's GPUs, whose fused kernels take the number and do not look at it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def takes_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its `step` reads `found_inf`, as torch.amp.GradScaler asks its optimizers."""
    known = getattr(optimizer, "_step_supports_amp_scaling", False)
    groups = optimizer.param_groups
    devices = {p.device.type for group in groups for p in group["params"]}
    return bool(known) and "mps" not in devices and all(g.get("fused", True) for g in groups)


def step_unless(skip: Tensor, optimizer: Any) -> None:
    """One step of the optimizer, or none where skip holds.

    Args:
        skip: [] bool, on the device of the weights.
        optimizer: a torch optimizer or Lightning's wrapper of one.
    """
    bare = getattr(optimizer, "optimizer", optimizer)
    if not takes_found_inf(bare):
        if not bool(skip):
            optimizer.step()
        return
    bare.found_inf = skip.float()
    try:
        optimizer.step()
    finally:
        del bare.found_inf


def laid_out_as(x: Tensor, p: Tensor) -> Tensor:
    """x in the memory layout of p, of the same shape: fused optimizers go through both alike."""
    if x.stride() == p.stride():
        return x
    sides = zip(x.shape, x.stride(), p.stride(), strict=True)
    if all(a == b for size, a, b in sides if size > 1):
        return x.as_strided(p.shape, p.stride())
    return torch.empty_like(p, memory_format=torch.preserve_format).copy_(x)


def settle_states(optimizer: torch.optim.Optimizer) -> None:
    """Lay out what a checkpoint brought along as a fused optimizer reads it, if this one is."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    state[name] = laid_out_as(value, p)
                elif isinstance(value, Tensor) and name == "step" and group.get("fused"):
                    state[name] = value.to(p.device, torch.float32)
