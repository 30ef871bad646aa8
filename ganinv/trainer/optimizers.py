"""The optimizers' numbers: for the batch of all processes together, and from this run's config."""

from __future__ import annotations

import logging

import pytorch_lightning as pl

from ganinv.core.errors import ConfigError, explain
from ganinv.method.base import Method
from ganinv.optimizer.scale import restore_config_hparams
from ganinv.optimizer.skip import settle_states

log = logging.getLogger(__name__)

LARGEST = 16.0  # times the batch: so far the rule was tried


class Optimizers(pl.Callback):
    """Scales every player's optimizer (`optimizer/scale.py`), also when a run goes on with another
    number of processes.

    Args:
        batch_size: images of one process in one step.
        reference_batch_size: images of a step that the numbers are meant for; None leaves them.
        max_images: length of the run.
        rate_decay: share of the run, at its end, over which every rate falls to nothing.

    Raises:
        ConfigError: no such batch.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        reference_batch_size: int | None,
        max_images: int,
        rate_decay: float,
    ) -> None:
        if reference_batch_size is not None and reference_batch_size < 1:
            raise ConfigError(
                explain(
                    f"trainer.reference_batch_size={reference_batch_size}",
                    "a number of images of at least 1, or null",
                    "set it to the batch of the recipe, 8 for pSp and e4e",
                )
            )
        self.batch_size, self.reference_batch_size = batch_size, reference_batch_size
        self.max_images, self.rate_decay = max_images, rate_decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before the optimizers are made."""
        assert isinstance(pl_module, Method)
        if self.reference_batch_size is not None:
            k = self.batch_size * trainer.world_size / self.reference_batch_size
            pl_module.scale_optimizers(k)
            if k > LARGEST and trainer.is_global_zero:
                log.warning(
                    "a batch of %d images is %g times trainer.reference_batch_size; the rule "
                    "was tried up to %g times (docs/LOG.md): watch train/grad_norm, or take a "
                    "smaller batch",
                    self.batch_size * trainer.world_size, k, LARGEST,
                )  # fmt: skip

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After a checkpoint has been read."""
        for optimizer in trainer.optimizers:
            restore_config_hparams(optimizer)
            settle_states(optimizer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """A function of images seen alone: a resumed run, or a longer one, has its own."""
        assert isinstance(pl_module, Method)
        left = 1 - pl_module.images_seen / self.max_images
        pl_module.rate_factor = min(1.0, left / self.rate_decay) if self.rate_decay else 1.0
