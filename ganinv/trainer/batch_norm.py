"""Batch normalisation over the batches of all ranks, on any device.

torch's own SyncBatchNorm runs on GPUs only; this one is a few differentiable all-reduces, so that
two CPU processes can be held against one.

Source of the statistics: Ioffe & Szegedy, arXiv 1502.03167.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from ganinv.method.base import Method


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose mean and variance in training are those of the batches of all ranks.

    Every rank must hold equally many pixels, as the stream guarantees. Statistics are taken in
    float32, whatever the precision of x; the result has the precision of x.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,H,W] -> normalised x; moves the running statistics as `BatchNorm2d` does."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._normalised(x.float()).to(x.dtype)

    def _normalised(self, x: Tensor) -> Tensor:
        """x float32: sums over the images of all ranks lose too much in bfloat16."""
        world = dist.get_world_size()
        mean = all_reduce(x.mean((0, 2, 3))) / world  # [C]
        centred = x - mean[:, None, None]
        var = all_reduce(centred.square().mean((0, 2, 3))) / world
        with torch.no_grad():
            count = world * x.numel() / x.shape[1]
            momentum = self.momentum if self.momentum is not None else 0.1
            assert self.running_mean is not None and self.running_var is not None
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (count / (count - 1)), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = (var + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
            return centred * scale[:, None, None] + self.bias[:, None, None]
        return centred * scale[:, None, None]


def synchronise(network: nn.Module) -> None:
    """Turn every BatchNorm2d of a network into `SyncBatchNorm2d`; keys and weights stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d


class SyncBatchNorm(pl.Callback):
    """Synchronises the batch normalisation of every player before the run starts."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Convert in place."""
        assert isinstance(pl_module, Method)
        for name in pl_module.player_names:
            synchronise(getattr(pl_module, name))
