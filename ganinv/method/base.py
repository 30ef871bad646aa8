"""What every training method shares and no paper mentions: frozen networks, the clock, checkpoints.

A method subclasses `Method`, names its players (the networks it trains) and writes `step(x,
batch)`, which reads like its paper:

    self.descend("E", self.loss_E, x)              # players.py says what that is

The clock is `images_seen`, over all processes. Random numbers are functions of (seed, images_seen,
rank) or of (seed, position of the image): resuming repeats the run exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.errors import WeightsError
from ganinv.core.image import to_unit
from ganinv.core.interface import Batch
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.method.players import OptimizerFactory, Players

__all__ = ["Method", "OptimizerFactory"]


class Method(Players):
    """A training method. Subclasses add players and frozen networks, and write `step`.

    Args:
        seed: seed of every random number of the run.
        micro_batches, clip_norm, max_nonfinite: as `Players`.
    """

    strict_loading = False  # frozen networks are absent on purpose; see check_checkpoint
    monitor = "total"  # the validation value of the best checkpoint; lower is better
    gives: tuple[str, ...] = ()  # what its loss terms may read of a step

    def __init__(
        self, *, seed: int, micro_batches: int, clip_norm: float | None, max_nonfinite: int
    ) -> None:
        super().__init__(
            micro_batches=micro_batches, clip_norm=clip_norm, max_nonfinite=max_nonfinite
        )
        self.seed, self.images_seen = seed, 0
        self.shown: dict[str, float] = {}  # the numbers last logged, for the progress bar
        self.validation: dict[str, float] = {}  # means of the last validation
        self.grid: Tensor | None = None  # its picture, float [3,H,W] in [0,1]
        self.interrupted = 0  # the signal that ended the run early
        self.provenance: dict[str, Any] = {}  # written into checkpoints: config, generator, version
        self._frozen: list[str] = []

    def step(self, x: Tensor, batch: Batch) -> None:
        """One iteration of the paper on x [B,3,H,W] in [-1,1]."""
        raise AssertionError(f"{type(self).__name__} has no step")

    def validate(self, batch: Batch, batch_idx: int) -> None:
        """Measure one batch of the validation images."""
        raise AssertionError(f"{type(self).__name__} has no validate")

    def next_commands(self, checkpoint: str) -> list[str]:
        """What a user would type next, given the path of the finished checkpoint."""
        return []

    def validation_leaves_out(self) -> list[str]:
        """The losses that the total of a validation does not count."""
        return []

    def add_frozen(self, name: str, network: nn.Module) -> None:
        """Register a network that stays fixed, in eval mode, and out of every checkpoint."""
        setattr(self, name, network.eval().requires_grad_(False))
        self._frozen.append(name)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Seed, step, advance the clock."""
        torch.manual_seed(derive_seed(self.seed, "step", self.images_seen, self.global_rank))
        self.begin_step()
        self.step(self.images(batch), batch)
        self.images_seen += self.global_batch(len(batch["key"]))

    def on_train_end(self) -> None:
        """Whatever trains it, the numbers of skipped steps are right in the end."""
        self.skipped.read()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """In float32, whatever the run's precision: the best checkpoint is chosen by it."""
        with torch.autocast(self.device.type, enabled=False):
            self.validate(batch, batch_idx)

    def images(self, batch: Batch) -> Tensor:
        """x [B,3,H,W] in [-1,1] of a batch."""
        return to_unit(batch["image"])

    def randn(self, purpose: str, position: Tensor, *shape: int) -> Tensor:
        """N(0,1) [B,*shape]; element i is a function of (seed, purpose, position[i]) alone."""
        return randn_rows(self.seeds(purpose, position), shape, self.device)

    @property
    def nonfinite(self) -> int:
        """Steps skipped so far, as of the last log entry, checkpoint or end of the run."""
        return self.skipped.total

    def seeds(self, purpose: str, position: Tensor) -> list[int]:
        """One seed an image of the global stream."""
        return [derive_seed(self.seed, purpose, p) for p in position.tolist()]

    def train(self, mode: bool = True) -> Method:
        """Frozen networks stay in eval mode."""
        super().train(mode)
        for name in self._frozen:
            getattr(self, name).eval()
        return self

    # ------------------------------------------------------------------ checkpoints

    def is_frozen(self, key: str) -> bool:
        """Whether a weight of this name is not trained, and in no checkpoint."""
        return key.split(".", 1)[0] in self._frozen

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen networks out; add the clock and what identifies the run.

        Raises:
            NotFinite: the run is to end: `SkippedSteps.read`.
        """
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not self.is_frozen(k)}
        self.skipped.read()
        checkpoint["images_seen"], checkpoint["nonfinite"] = self.images_seen, self.nonfinite
        checkpoint["nonfinite_in_a_row"] = dict(self.skipped.in_a_row)
        checkpoint["ganinv"] = self.provenance

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called before anything is read but the checkpoint.

        Raises:
            WeightsError: a checkpoint of another network or on another generator.
        """
        given = set(checkpoint["state_dict"])
        expected = {k for k in self.state_dict() if not self.is_frozen(k)}
        if given != expected:
            missing, extra = sorted(expected - given)[:3], sorted(given - expected)[:3]
            raise WeightsError(
                f"the checkpoint does not fit {type(self).__name__}: missing {missing or 'nothing'}"
                f", unexpected {extra or 'nothing'}; expected the run's own encoder and method. "
                "To fix: resume with the config stored beside the checkpoint"
            )
        both = checkpoint.get("ganinv", {}), self.provenance
        theirs, ours = (identity.get("generator_sha256") for identity in both)
        if theirs != ours:
            raise WeightsError(
                f"the checkpoint was trained on a generator with sha256 {str(theirs)[:12]}, this "
                f"run loads one with {str(ours)[:12]}; expected the same file. To fix: set "
                "generator.weights to the file of the first run"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the clock."""
        self.check_checkpoint(checkpoint)
        self.images_seen = checkpoint["images_seen"]
        in_a_row = checkpoint.get("nonfinite_in_a_row", {})
        self.skipped.restore(checkpoint["nonfinite"], in_a_row)
