"""The bar on the terminal: kimg, images a second, time left, the last losses."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from ganinv.method.base import Method
from ganinv.run.logs import Lines


class Progress(pl.Callback):
    """A tqdm bar over images seen, on rank 0. Without a terminal it prints a line now and then.

    Args:
        max_images: length of the run.
    """

    def __init__(self, *, max_images: int) -> None:
        self.max_images = max_images
        self.bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar where the run stands."""
        assert isinstance(pl_module, Method)
        if trainer.is_global_zero:
            terminal = sys.stderr.isatty()
            self.bar = tqdm(
                total=self.max_images / 1000,
                initial=pl_module.images_seen / 1000,
                unit="kimg",
                dynamic_ncols=True,
                file=sys.stderr if terminal else Lines(sys.stderr),
                smoothing=0.05 if terminal else 1.0,  # of refreshes, which are rare in a log
                mininterval=0.5 if terminal else 30.0,
                bar_format="{desc}{percentage:3.0f}%|{bar}| {n:.2f}/{total:.2f} kimg "
                "[{elapsed}<{remaining}{postfix}]",
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Advance."""
        if self.bar is None:
            return
        assert isinstance(pl_module, Method)
        rate = self.bar.format_dict["rate"]
        shown = pl_module.shown
        text = [f"{1000 * rate:.1f} img/s"] if rate else []
        text += [f"{name}={value:.3g}" for name, value in list(shown.items())[:4]]
        self.bar.set_postfix_str(" ".join(text), refresh=False)
        kimg = pl_module.images_seen / 1000
        self.bar.total = max(self.bar.total, kimg)  # the last step may pass the length
        self.bar.update(kimg - self.bar.n)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the bar, also after an error."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
