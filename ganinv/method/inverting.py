"""What every method that trains an encoder against a frozen generator shares.

x      [B,3,H,W]  target image in [-1,1]          s  [B,C,H,W]  E's input, made by the task
wp     [B,L,D]    codes: w_avg + E(s), or E(s)    x_hat  G(wp), averaged down to H x W px
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import make_grid

from ganinv.core.command import entry, override
from ganinv.core.interface import Batch, Generator, Noise
from ganinv.inversion.model import Model
from ganinv.loss.term import Losses, Terms
from ganinv.method.base import Method, OptimizerFactory
from ganinv.task.task import Task

log = logging.getLogger(__name__)

GRID_IMAGES = 16
VALIDATED = ("x_hat", "x", "wp", "w_avg")  # terms that read no more mean the same all through a run


class EncoderMethod(Method):
    """A method with an encoder E, a frozen generator G and weighted terms.

    Args:
        generator: G; frozen.
        encoder: E; trained.
        loss: the terms; frozen.
        task: what E reads.
        optimizer: factory of E's optimizer.
        start_from_w_avg: whether E's output is an offset from w_avg.
        noise: the generator's noise while training: random (as released) or const.
        seed, micro_batches, clip_norm, max_nonfinite: as `Method`.
    """

    inverts = True  # E alone leads from an image to wp
    extra_input_channels = 0  # channels that E reads besides s
    gives: tuple[str, ...] = ("x_hat", "x", "wp", "w_avg")
    G: Generator
    E: nn.Module
    terms: Terms
    model: Model  # E and G

    def __init__(
        self,
        *,
        generator: nn.Module,
        encoder: nn.Module,
        loss: Terms,
        task: Task,
        optimizer: OptimizerFactory,
        start_from_w_avg: bool,
        noise: Noise,
        seed: int,
        micro_batches: int,
        clip_norm: float | None,
        max_nonfinite: int,
    ) -> None:
        super().__init__(
            seed=seed, micro_batches=micro_batches, clip_norm=clip_norm, max_nonfinite=max_nonfinite
        )
        self.noise, self.task = noise, task
        layout = {"memory_format": torch.channels_last}  # the fast one for these convolutions
        self.add_player("E", encoder.to(**layout), optimizer)
        self.add_frozen("G", generator.to(**layout))
        self.add_frozen("terms", loss)
        model = Model(
            encoder=self.E, generator=generator, task=task, start_from_w_avg=start_from_w_avg
        )
        object.__setattr__(self, "model", model)  # no submodule: E and G are registered above
        self._sums: dict[str, Tensor] = {}

    @property
    def generator(self) -> Generator:
        """The frozen generator."""
        return self.G

    @property
    def w_avg(self) -> Tensor:
        """[D], what E's output is an offset from: G's average, or zero."""
        return self.G.w_avg if self.model.start_from_w_avg else torch.zeros_like(self.G.w_avg)

    def encode(self, s: Tensor) -> Tensor:
        """s [B,C,H,W] in [-1,1] -> wp [B,L,D], as E is at present."""
        return self.model.encode(s, **self.encoder_arguments())

    def encoder_arguments(self) -> dict[str, Any]:
        """Keyword arguments of E's forward, besides its input."""
        return {}

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """x [B,3,H,W] -> its reconstruction of the same size, with the stored noise."""
        return self.model.render(self.encode(x), x.shape[-2:])

    # ------------------------------------------------------------------ validation

    def on_fit_start(self) -> None:
        """Say what the best checkpoint is chosen by."""
        left_out = self.validation_leaves_out()
        if left_out and self.trainer.is_global_zero:
            log.info(
                "val/total, which chooses the best checkpoint, leaves out %s: what a schedule or "
                "another player changes does not compare",
                ", ".join(left_out),
            )

    def validate(self, batch: Batch, batch_idx: int) -> None:
        """Sum every term over the images of this rank; draw the first ones."""
        x = self.images(batch)
        s = self.encoder_input(batch, x)
        wp = self.encode(s)
        x_hat = self.model.render(wp, x.shape[-2:])
        terms = self.terms.readable(VALIDATED)
        self.accumulate_validation(terms(x_hat=x_hat, x=x, wp=wp, w_avg=self.w_avg))
        if batch_idx == 0:
            shown = [x, x_hat] if s is x else [self.task.picture(s), x, x_hat]
            self.grid = self.draw([image[:GRID_IMAGES] for image in shown])

    def validation_leaves_out(self) -> list[str]:
        """The trained terms that read more than images and codes."""
        counted = self.terms.readable(VALIDATED)
        terms = self.terms.terms()
        return [name for name in terms if name not in counted and terms[name].weight]

    def accumulate_validation(self, losses: Losses) -> None:
        """Add losses, name -> (weight, [B]), and their total, to the sums of this validation."""
        values = {name: value.detach() for name, (_, value) in losses.items()}
        weighed = [weight * value for weight, value in losses.values() if weight]
        if weighed:
            values["total"] = torch.stack(weighed).sum(0)
        for name, value in values.items():
            both = torch.stack([value.double().sum(), value.new_tensor(len(value)).double()])
            self._sums[name] = self._sums[name] + both if name in self._sums else both

    def on_validation_epoch_end(self) -> None:
        """Means over all images of all ranks."""
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name] for name in names])
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        self.validation = dict(zip(names, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))
        self._sums = {}

    @staticmethod
    def draw(images: list[Tensor]) -> Tensor:
        """Rows of inputs and targets over rows of reconstructions, [3,H,W] in [0,1]."""
        columns = min(8, len(images[0]))
        missing = -len(images[0]) % columns
        split = [F.pad(x, (0,) * 7 + (missing,)).split(columns) for x in images]
        rows = [row for parts in zip(*split, strict=True) for row in parts]
        return make_grid(torch.cat(rows).float().cpu().clamp(-1, 1) / 2 + 0.5, nrow=columns)

    def images(self, batch: Batch) -> Tensor:
        """x [B,3,H,W] in [-1,1]: the batch's own, or, of a synthetic dataset, samples of G."""
        return self.model.images(batch, self.seed)

    def encoder_input(self, batch: Batch, x: Tensor) -> Tensor:
        """s [B,C,H,W]: what the encoder reads of a batch."""
        seeds = self.seeds("source", batch["position"])
        return self.model.encoder_input(x, batch.get("source"), seeds, self.training)

    def next_commands(self, checkpoint: str) -> list[str]:
        """What a user would type next."""
        return [f"{entry('evaluate')} {override('checkpoint', checkpoint)}"]
