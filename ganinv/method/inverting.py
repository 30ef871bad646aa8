"""What every method that trains an encoder against a frozen generator shares.

x      [B,3,H,W]  target image in [-1,1]          s  [B,C,H,W]  E's input, made by the task
wp     [B,L,D]    codes: w_avg + E(s), or E(s)    x_hat  G(wp), averaged down to H x W px
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import make_grid

from ganinv.core.interface import Batch, Generator, Noise
from ganinv.inversion.model import Model
from ganinv.loss.term import Terms
from ganinv.method.base import Method, OptimizerFactory
from ganinv.task.task import Task

GRID_IMAGES = 16


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
        seed: see `Method`, also for the rest.
        micro_batches: see there.
        clip_norm: see there.
        max_nonfinite: see there.
    """

    inverts = True  # E alone leads from an image to wp
    extra_input_channels = 0  # channels that E reads besides s
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

    def encode(self, s: Tensor) -> Tensor:
        """s [B,C,H,W] in [-1,1] -> wp [B,L,D]."""
        return self.model.encode(s, **self.encoder_arguments())

    def encoder_arguments(self) -> dict[str, Any]:
        """What E is told besides what it reads."""
        return {}

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """x [B,3,H,W] -> its reconstruction of the same size, with the stored noise."""
        return self.model.render(self.encode(x), x.shape[-2:])

    def losses_E(self, s: Tensor, x: Tensor, position: Tensor) -> Iterator[Tensor]:
        """The losses that E descends together on one chunk: one, or one a refinement."""
        yield self.loss_E(s, x, position)

    def loss_E(self, s: Tensor, x: Tensor, position: Tensor) -> Tensor:
        """The loss of a chunk, its mean over the images."""
        raise AssertionError(f"{type(self).__name__} has no loss_E")

    def log_and_sum(self, values: dict[str, Tensor]) -> Tensor:
        """Watch every term [B] and return the weighted total, a scalar."""
        for name, value in values.items():
            self.log_mean(name, value)
        total: Tensor = self.terms.total(values)
        self.log_mean("total", total)
        return total

    # ------------------------------------------------------------------ validation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sum every term over the images of this rank; draw the first ones."""
        x = self.images(batch)
        s = self.encoder_input(batch, x)
        wp = self.encode(s)
        x_hat = self.model.render(wp, x.shape[-2:])
        values = self.terms.image(x_hat, x) | self.validate_codes(wp)
        values["total"] = self.weighted(values)
        self.accumulate_validation(values)
        if batch_idx == 0:
            shown = [x, x_hat] if s is x else [self.task.picture(s), x, x_hat]
            self.grid = self.draw([image[:GRID_IMAGES] for image in shown])

    def accumulate_validation(self, values: dict[str, Tensor]) -> None:
        """Add name -> [B] to the sums of this validation."""
        for name, value in values.items():
            both = torch.stack([value.double().sum(), value.new_tensor(len(value)).double()])
            self._sums[name] = self._sums[name] + both if name in self._sums else both

    def validate_codes(self, wp: Tensor) -> dict[str, Tensor]:
        """The latent terms that need no other player; name -> [B]."""
        return {}

    def weighted(self, values: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the image terms [B]: what the best checkpoint is chosen by. Adversarial
        and schedule-dependent terms are left out, so that it means the same all through a run."""
        weights = self.terms.weights("image")
        return torch.stack([weights[n] * values[n].detach() for n in weights]).sum(0)

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
        return [f"python evaluate.py checkpoint={checkpoint}"]
