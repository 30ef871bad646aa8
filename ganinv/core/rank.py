"""Which process of how many this is; with `trainer/`, the only place that asks
torch.distributed."""

from __future__ import annotations

import os

import torch.distributed as dist


def rank() -> int:
    """Global rank of this process, 0 when the run is not distributed (or not yet)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def world_size() -> int:
    """Number of processes, 1 when the run is not distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1
