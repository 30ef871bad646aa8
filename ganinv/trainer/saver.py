"""When checkpoints are written, and which of them stay."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ganinv.core.errors import NotFinite, explain
from ganinv.core.safe.io import write_atomic
from ganinv.method.base import Method
from ganinv.run.checkpoint import LAST
from ganinv.run.ledger import RANKING, Ledger, is_uploaded
from ganinv.trainer.callbacks import due, step_images
from ganinv.trainer.checkpoint_io import AtomicCheckpointIO

NAME = re.compile(r"best-\d{1,15}\.ckpt")
log = logging.getLogger(__name__)


def not_finite(method: Method, optimizers: list[torch.optim.Optimizer]) -> str | None:
    """The first tensor of a checkpoint that is NaN or Inf; None if all is sound."""
    named = {n: v for n, v in method.state_dict().items() if not method.is_frozen(n)}
    for player, optimizer in zip(method.player_names, optimizers, strict=True):
        states = enumerate(optimizer.state.values())
        named |= {f"the optimizer of {player}: {k} {i}": v for i, s in states for k, v in s.items()}
    numbers = {n: v for n, v in named.items() if torch.is_tensor(v) and v.is_floating_point()}
    if not numbers:
        return None
    sound = torch.stack([v.isfinite().all().to(method.device) for v in numbers.values()])
    return None if bool(sound.all()) else list(numbers)[int((~sound).nonzero()[0])]


class Saver(pl.Callback):
    """Writes `last.ckpt` when due, when the run ends or is interrupted, and the best `keep_best`.

    Args:
        folder: where the checkpoints go.
        every: images between two writes of last.ckpt.
        keep_best: how many `best-*.ckpt` stay; `best.ckpt` is a hard link to the first of them.
    """

    def __init__(self, *, folder: Path, every: int, keep_best: int) -> None:
        self.folder, self.every, self.keep_best = folder, every, keep_best
        self.best: list[tuple[float, str]] = []  # ascending: lower is better

    @staticmethod
    def _files(trainer: pl.Trainer) -> AtomicCheckpointIO:
        files = trainer.strategy.checkpoint_io
        assert isinstance(files, AtomicCheckpointIO)
        return files

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Save when due, and at the last step."""
        assert isinstance(pl_module, Method)
        seen = pl_module.images_seen
        if due(seen, seen - step_images(trainer), self.every) or trainer.should_stop:
            self._save(trainer, pl_module, LAST)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep this state if it is among the best."""
        assert isinstance(pl_module, Method)
        score = pl_module.validation.get(pl_module.monitor)
        if score is None or trainer.sanity_checking:
            return
        if not math.isfinite(score):
            log.warning(
                "val/%s is %s at %.2f kimg: not among the best checkpoints",
                pl_module.monitor, score, pl_module.images_seen / 1000,
            )  # fmt: skip
            return
        name = f"best-{pl_module.images_seen:09d}.ckpt"
        ranked = sorted([*(b for b in self.best if b[1] != name), (score, name)])
        dropped = [n for _, n in ranked[self.keep_best :]]
        self.best = ranked[: self.keep_best]
        if name not in dropped:
            self._save(trainer, pl_module, name)
        if trainer.is_global_zero:
            best = list(self.best)
            self._files(trainer).afterwards(lambda: self._keep(best, dropped))

    def _save(self, trainer: pl.Trainer, method: Method, name: str) -> None:
        """Write a checkpoint, unless a weight is not finite.

        Raises:
            NotFinite: on every rank, if a tensor of any rank is NaN or Inf; nothing is written.
        """
        broken = not_finite(method, trainer.optimizers)
        ranks = torch.tensor(float(broken is not None), device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            ranks = trainer.strategy.reduce(ranks, reduce_op="sum")
        if float(ranks):
            raise NotFinite(
                explain(
                    f"{broken or 'a tensor of another rank'} is NaN or Inf at "
                    f"{method.images_seen / 1000:.2f} kimg",
                    "finite weights, statistics and optimizer states",
                    f"nothing was written over {self.folder}; go on from there (resume=auto) with "
                    "a lower optimizer.lr, or with trainer.precision=32-true",
                )
            )
        trainer.save_checkpoint(self.folder / name)

    def _keep(self, ranked: list[tuple[float, str]], dropped: list[str]) -> None:
        """Remove what is no longer among the best; link the best one; write the ranking down. Of a
        run that is kept elsewhere the best one may be there alone, under both names."""
        for old in dropped:
            (self.folder / old).unlink(missing_ok=True)
        if (self.folder / ranked[0][1]).is_file() or not is_uploaded(self.folder.parent):
            temporary = self.folder / ".best.ckpt"
            temporary.unlink(missing_ok=True)
            temporary.hardlink_to(self.folder / ranked[0][1])
            temporary.replace(self.folder / "best.ckpt")
            temporary.unlink(missing_ok=True)  # renaming a file onto its own link does nothing
        ranking = json.dumps({name: score for score, name in ranked}, indent=1)
        write_atomic(self.folder.parent / RANKING, ranking.encode())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The run is over when its checkpoints are on disk."""
        self._files(trainer).wait()

    def state_dict(self) -> dict[str, Any]:
        """The ranking survives a resume."""
        return {"best": [list(entry) for entry in self.best]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forget checkpoints that are no longer there."""
        entries = [(float(score), str(name)) for score, name in state_dict["best"]]
        there = Ledger(self.folder.parent)  # of a run that is kept elsewhere
        self.best = [
            (score, name)
            for score, name in entries
            if NAME.fullmatch(name)
            and ((self.folder / name).is_file() or f"{self.folder.name}/{name}" in there)
        ]
