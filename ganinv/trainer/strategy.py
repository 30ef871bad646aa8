"""Data parallelism for methods with any number of players.

Every rank holds the whole method. A player's gradients are averaged over ranks in the last backward
pass of its `descend` (`reduction.py`). Unlike DistributedDataParallel, which wraps the module and
hooks every backward pass, this needs no search for unused parameters: heads that a progressive
schedule has not opened, players that wait, gradient penalties with a double backward and gradient
accumulation are all the same case, and a player's step sends that player's bytes only.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from ganinv.run.checkpoint import PIECE, Held
from ganinv.run.launch import store
from ganinv.run.watchdog import RankWatchdog
from ganinv.trainer.checkpoint_io import AtomicCheckpointIO
from ganinv.trainer.reduction import Reduction

BUCKET_BYTES = 64 << 20


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over ranks, in place, in buckets of one dtype."""
    world = dist.get_world_size()
    bucket: list[Tensor] = []
    size = 0
    for i, tensor in enumerate(tensors):
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
        last = i + 1 == len(tensors)
        if last or size >= BUCKET_BYTES or tensors[i + 1].dtype != tensor.dtype:
            flat = torch.cat([t.reshape(-1) for t in bucket])
            dist.all_reduce(flat)
            flat.div_(world)
            for t, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                t.copy_(part.view_as(t))
            bucket, size = [], 0


def _leave() -> None:
    """Destroy the process group, which NCCL asks for before a process ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Replicas(DDPStrategy):
    """Lightning's process launching and collectives, with gradients averaged by `Method.descend`,
    and with ranks that watch one another.

    Args:
        timeout: how long ranks wait for one another before the run stops and names the one that did
            not come.
        bucket_mb: MiB of gradients that leave together.
        gradient_compression: type in which they are sent and summed, None for their own.
    """

    watch: RankWatchdog
    cpus: Any  # a group of the same ranks, for what their CPUs know
    gradients: Reduction

    def __init__(
        self,
        *,
        timeout: timedelta,
        bucket_mb: float,
        gradient_compression: Literal["bf16"] | None,
        **rest: Any,
    ) -> None:
        super().__init__(
            timeout=2 * timeout + timedelta(minutes=1), **rest
        )  # the watch comes first
        self.patience = timeout
        self.bucket_mb, self.gradient_compression = bucket_mb, gradient_compression
        self._statistics_bytes = 0

    def setup_environment(self) -> None:
        """Join the other ranks and start the watchdog."""
        super().setup_environment()
        self.watch = RankWatchdog(
            rank=self.global_rank,
            world_size=self.world_size,
            timeout=self.patience.total_seconds(),
        )
        self.watch.children = getattr(self.launcher, "procs", [])
        self.watch.start()

    def setup_distributed(self) -> None:
        """Join the process group through the ranks' own store, whose keys begin anew each time that
        a launcher starts the ranks: torchrun's store still knows the dead ranks' addresses."""
        self.set_world_ranks()
        if not dist.is_initialized():
            backend, device = self._get_process_group_backend(), self.root_device
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("group", store()),  # type: ignore[attr-defined]
                rank=self.global_rank,
                world_size=self.world_size,
                timeout=self._timeout,
                device_id=None if device.type == "cpu" else device,
            )
            if backend == "nccl":
                atexit.register(_leave)
        self.cpus = dist.new_group(backend="gloo", timeout=self._timeout)
        self.gradients = Reduction(
            bucket_bytes=round(self.bucket_mb * 2**20),
            compression=self.gradient_compression,
            group=dist.new_group(timeout=self._timeout),
            cpus=self.cpus,
        )
        super().setup_distributed()

    def configure_ddp(self) -> None:
        """Start every rank from rank 0's weights; the module itself stays unwrapped."""
        assert isinstance(self.model, nn.Module)
        with self.watch.meeting():
            for tensor in [*self.model.parameters(), *self.model.buffers()]:
                dist.broadcast(tensor.detach(), src=0)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Load, on every rank, what rank 0 has read: its bytes are sent to the others, in pieces;
        a rank holds them once, beside what it makes of them."""
        files = self.checkpoint_io
        assert isinstance(files, AtomicCheckpointIO)
        size = self.broadcast(None if files.held is None else len(files.held.content))
        if size is not None:
            own = files.held or Held(Path(checkpoint_path), bytearray(size))
            for piece in torch.frombuffer(own.content, dtype=torch.uint8).split(PIECE):
                with self.watch.meeting():
                    sent = piece.to(self.root_device)  # on a CPU the piece itself
                    dist.broadcast(sent, src=0)
                    piece.copy_(sent)
            files.held = own
        return super().load_checkpoint(checkpoint_path, weights_only)

    @property
    def reduced_bytes(self) -> int:
        """Handed to all-reduces by this rank so far."""
        return self._statistics_bytes + self.gradients.bytes_sent

    def sending_gradients(
        self, which: str, parameters: Sequence[nn.Parameter]
    ) -> AbstractContextManager[None]:
        """A block with a backward pass whose gradients leave as they are complete."""
        return self.gradients.during_backward(which, parameters)

    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average `.grad` over ranks; waits for what `sending_gradients` sent."""
        with self.watch.meeting():
            self.gradients.finish(parameters)

    def reduce_mean(self, tensors: list[Tensor]) -> None:
        """Average any tensors over ranks, in place: statistics that must not drift apart."""
        self._statistics_bytes += sum(t.numel() * t.element_size() for t in tensors)
        with self.watch.meeting():
            average(tensors)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all ranks."""
        if dist.is_initialized():
            with self.watch.meeting():
                super().barrier(*args, **kwargs)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Send the object of one rank to all."""
        with self.watch.meeting():
            return super().broadcast(obj, src)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """The mean or sum of a tensor over all ranks."""
        with self.watch.meeting():
            return super().reduce(tensor, group, reduce_op)

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers, which their CPUs tell one another: no GPU is waited
        for."""
        found = torch.tensor(number)
        with self.watch.meeting():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.cpus)
        return int(found)

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """The tensors of all ranks, [N,...]."""
        with self.watch.meeting():
            return super().all_gather(tensor, group, sync_grads)

    def gather_rows(self, row: Tensor) -> Tensor:
        """A small row of numbers of each rank, [N,K] on the CPU."""
        return self.all_gather(row.to(self.root_device)).cpu()

    def all_rows(self, rows: Tensor) -> Tensor:
        """Rows [n,...] of each rank, where n may differ -> those of all ranks [N,...]."""
        with self.watch.meeting():
            return torch.cat(gather_all_tensors(rows))

    def teardown(self) -> None:
        """Stop watching the other ranks: no collectives follow."""
        if hasattr(self, "watch"):
            self.watch.stop()
        super().teardown()
