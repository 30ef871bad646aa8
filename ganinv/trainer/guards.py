"""Guards of a run: ranks that must stay equal, and losses that must stay finite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ganinv.core.errors import NotFinite, RunError, explain
from ganinv.method.base import Method
from ganinv.run.logs import print_to_terminal
from ganinv.trainer.batch_norm import SyncBatchNorm2d
from ganinv.trainer.callbacks import due, step_images


def shared_tensors(method: Method) -> Iterator[tuple[str, Tensor]]:
    """What must be the same on every rank: all that is trained, and the buffers beside it but for
    the running statistics of batch normalisation that is each rank's own.
    """
    own: set[str] = set()
    for name, module in method.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm2d):
            own |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers(recurse=False)}
    for name, tensor in [*method.named_parameters(), *method.named_buffers()]:
        if name not in own and not method.is_frozen(name):
            yield name, tensor.detach()


def checksum(tensor: Tensor) -> Tensor:
    """An int64 of the tensor's bits, in which every bit and its place count; on its device."""
    bits = tensor.contiguous().view(-1).view(torch.uint8).to(torch.int64)  # [bytes]
    place = torch.arange(1, len(bits) + 1, device=bits.device) * 0x9E3779B1
    return ((bits + 1) * (place ^ (place >> 15))).sum()


class CompareRanks(pl.Callback):
    """Compares checksums of the trained networks over all ranks; they are equal bit for bit.

    Args:
        every: steps between two comparisons, 0 for none.
    """

    def __init__(self, *, every: int) -> None:
        self.every = every
        self._steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ranks must start equal, and at the same image."""
        self.compare(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Compare every `every` steps."""
        self._steps += 1
        if self.every and self._steps % self.every == 0:
            self.compare(trainer, pl_module)

    def compare(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        """Raise on every rank if any differs.

        Raises:
            RunError: naming the first tensor that differs, and the ranks.
        """
        assert isinstance(method, Method)
        names, tensors = zip(*shared_tensors(method), strict=True)
        with torch.no_grad():
            sums = [checksum(tensor) for tensor in tensors]
        row = torch.stack([*sums, sums[0].new_tensor(method.images_seen)])
        rows = trainer.strategy.gather_rows(row)  # type: ignore[attr-defined]  # [N,K]
        same = (rows == rows[:1]).all(0)
        if bool(same.all()):
            return
        first = int((~same).nonzero()[0])
        name = [*names, "the number of images seen"][first]
        others = (rows[:, first] != rows[0, first]).nonzero().flatten().tolist()
        raise RunError(
            explain(
                f"the ranks drifted apart at {method.images_seen / 1000:.2f} kimg: {name} (the "
                f"first of {int((~same).sum())} tensors) differs between rank 0 and "
                f"{', '.join(f'rank {r}' for r in others[:8])}",
                "equal weights on every rank, bit for bit",
                "go on from the last checkpoint (resume=auto); if it comes again on the same "
                "machine, look at its memory and its GPU",
            )
        )


class KeepNotFinite(pl.Callback):
    """When losses stay NaN or Inf: saves the batch and what was measured on it.

    Every rank whose own losses are not finite writes, and rank 0; every rank, if no loss shows what
    the gradients have:
    `nonfinite-<images seen>-rank<N>.pt` with `batch`, `values`, `images_seen` and `rank`, for
    `torch.load(..., weights_only=True)`.

    Whether they do is known on the device alone, until the counts are read: with each log entry,
    checkpoint and validation. The batch is the one at which they were.

    Args:
        run_dir: the run's folder.
        every: images between two log entries.
    """

    def __init__(self, *, run_dir: Path, every: int) -> None:
        self.run_dir, self.every = run_dir, every
        self._batch: Any = None
        self._seen = 0  # images, before this batch
        self._skipped = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch until the next one."""
        assert isinstance(pl_module, Method)
        self._batch, self._seen = batch, pl_module.images_seen

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Read the counts when a log entry is due."""
        assert isinstance(pl_module, Method)
        seen = pl_module.images_seen
        if due(seen, seen - step_images(trainer), self.every):
            self._read(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the counts, if steps came before."""
        self._read(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the counts, before the run is called finished."""
        self._read(trainer, pl_module)

    def _read(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the steps that were skipped.

        Raises:
            NotFinite: `SkippedSteps.read`.
        """
        assert isinstance(pl_module, Method)
        pl_module.skipped.read()
        if pl_module.nonfinite > self._skipped and trainer.is_global_zero:
            print_to_terminal(
                f"a step before {pl_module.images_seen / 1000:.2f} kimg was skipped: its gradient "
                f"was NaN or Inf ({pl_module.nonfinite} in all)"
            )
        self._skipped = pl_module.nonfinite

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save, if this is why the run ends; gradients are averaged, so it ends on all ranks."""
        if isinstance(exception, NotFinite):
            self._save(trainer, pl_module, exception)
            trainer.strategy.barrier()  # a launcher ends the others as soon as one has ended

    def _save(self, trainer: pl.Trainer, pl_module: Any, exception: NotFinite) -> None:
        assert isinstance(pl_module, Method)
        values = {name: value.detach().cpu() for name, value in pl_module.values.items()}
        finite = all(bool(v.isfinite().all()) for n, v in values.items() if "grad_norm" not in n)
        rank, device = trainer.global_rank, pl_module.device
        guilty = trainer.strategy.reduce(
            torch.tensor(float(not finite), device=device), None, "sum"
        )
        if finite and rank > 0 and guilty:
            return
        path = self.run_dir / f"nonfinite-{self._seen:09d}-rank{rank}.pt"
        content = {"batch": _plain(self._batch), "values": values, "images_seen": self._seen}
        torch.save(content | {"rank": rank, "reason": str(exception)}, path)
        print_to_terminal(f"The batch and its losses: {path}")


def _plain(value: Any) -> Any:
    """Tensors on the CPU, in plain containers."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
