"""What every training method shares and no paper mentions: players, frozen networks, the clock.

A method subclasses `Method`, names its players (the networks it trains) and writes `step(x,
batch)`, which reads like its paper:

    with self.play("E"):                                   # only E's weights take gradients
        self.descend("E", (self.loss_E(x) for x in self.chunks(x)))

Optimisation is manual. A step sees the whole batch of this process; `micro_batches` cuts it into
chunks, each player descends the mean over all chunks and then over all ranks, and only then the
next player moves. N chunks, or N processes, therefore equal one N times larger batch for any
number of players.
The clock is `images_seen`, over all processes. Random numbers are functions of (seed, images_seen,
rank) or of (seed, position of the image): resuming repeats the run exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ganinv.core.errors import NotFinite, WeightsError
from ganinv.core.image import to_unit
from ganinv.core.interface import Batch
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.optimizer.scale import scale_for_batch

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Method(pl.LightningModule):
    """A training method. Subclasses fill `players` and `optimizers_of` and write `step`.

    Args:
        seed: seed of every random number of the run.
        micro_batches: chunks into which each batch is cut; must divide the batch size.
        clip_norm: largest gradient norm of a player, None for no clipping.
        max_nonfinite: steps in a row whose gradient may be NaN or Inf (each is skipped and counted)
            before the run stops.
    """

    automatic_optimization = False
    strict_loading = False  # frozen networks are absent on purpose; see check_checkpoint
    monitor = "total"  # the validation value of the best checkpoint; lower is better

    def __init__(
        self, *, seed: int, micro_batches: int, clip_norm: float | None, max_nonfinite: int
    ) -> None:
        super().__init__()
        self.seed, self.micro_batches, self.clip_norm = seed, micro_batches, clip_norm
        self.max_nonfinite, self.images_seen = max_nonfinite, 0
        self.nonfinite, self.nonfinite_in_a_row = 0, 0
        self.values: dict[str, Tensor] = {}  # what the last step measured
        self.shown: dict[str, float] = {}  # the numbers last logged, for the progress bar
        self.validation: dict[str, float] = {}  # means of the last validation
        self.grid: Tensor | None = None  # its picture, float [3,H,W] in [0,1]
        self.interrupted = 0  # the signal that ended the run early
        self.provenance: dict[str, Any] = {}  # written into checkpoints: config, generator, version
        self._frozen: list[str] = []
        self._optimizer_of: dict[str, OptimizerFactory] = {}

    def step(self, x: Tensor, batch: Batch) -> None:
        """One iteration of the paper on x [B,3,H,W] in [-1,1]."""
        raise AssertionError(f"{type(self).__name__} has no step")

    def next_commands(self, checkpoint: str) -> list[str]:
        """What a user would type next, given the path of the finished checkpoint."""
        return []

    def add_player(self, name: str, network: nn.Module, optimizer: OptimizerFactory) -> None:
        """Register a network that this method trains, under the letter its step uses."""
        setattr(self, name, network)
        self._optimizer_of[name] = optimizer

    def scale_optimizers(self, k: float) -> None:
        """Let every player's optimizer be for a k times larger batch than its numbers say."""
        found = self._optimizer_of
        self._optimizer_of = {name: scale_for_batch(found[name], k) for name in found}

    def add_frozen(self, name: str, network: nn.Module) -> None:
        """Register a network that stays fixed, in eval mode, and out of every checkpoint."""
        setattr(self, name, network.eval().requires_grad_(False))
        self._frozen.append(name)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Seed, step, advance the clock."""
        torch.manual_seed(derive_seed(self.seed, "step", self.images_seen, self.global_rank))
        self.values = {}
        self.step(self.images(batch), batch)
        self.images_seen += self.global_batch(len(batch["key"]))

    def images(self, batch: Batch) -> Tensor:
        """x [B,3,H,W] in [-1,1] of a batch."""
        return to_unit(batch["image"])

    def chunks(self, *tensors: Tensor) -> Iterator[Any]:
        """The batch in `micro_batches` equal parts: x -> x_i, or (x, z) -> (x_i, z_i)."""
        parts = [t.tensor_split(self.micro_batches) for t in tensors]
        return iter(parts[0]) if len(parts) == 1 else zip(*parts, strict=True)

    @contextmanager
    def play(self, player: str) -> Iterator[None]:
        """Within this block only the weights of `player` take gradients."""
        for name in self.player_names:
            getattr(self, name).requires_grad_(name == player)
        try:
            yield
        finally:
            for name in self.player_names:
                getattr(self, name).requires_grad_(True)

    def descend(self, player: str, losses: Iterable[Tensor]) -> None:
        """Move `player` one optimizer step down the mean of `losses` over chunks and ranks.

        Args:
            player: a name given to `add_player`.
            losses: one scalar a chunk, computed lazily, so that one chunk's graph lives at a time.
        """
        optimizer = self._optimizer(player)
        optimizer.zero_grad(set_to_none=True)
        for loss in losses:
            self.manual_backward(loss / self.micro_batches)
        parameters = [p for p in getattr(self, player).parameters() if p.grad is not None]
        self.reduce_gradients(parameters)
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        self.values[f"grad_norm/{player}"] = norm.detach()
        if self._finite(norm, player):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def reduce_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over ranks; the trainer's strategy knows how."""
        reduce = getattr(self.trainer.strategy, "reduce_gradients", None)
        if reduce is not None:
            reduce(parameters)
        elif self.trainer.world_size > 1:
            raise AssertionError("several processes without ganinv.trainer.strategy.Replicas")

    def reduce_mean(self, tensors: list[Tensor]) -> None:
        """Average statistics over ranks, in place, so that no rank drifts from the others."""
        if self.trainer.world_size > 1:
            self.trainer.strategy.reduce_mean(tensors)  # type: ignore[attr-defined]

    def gather(self, mine: Tensor) -> tuple[Tensor, slice]:
        """The rows of all ranks in the order of the stream, and where this rank's are among them.

        Rank r of N holds positions r, r + N, r + 2N ... of a step (`dataset/stream.py`).
        """
        world = self.trainer.world_size
        if world == 1:
            return mine, slice(None)
        everyone = torch.as_tensor(self.all_gather(mine))  # [N,B,...]
        return everyone.transpose(0, 1).flatten(0, 1), slice(self.global_rank, None, world)

    def log_mean(self, name: str, value: Tensor) -> None:
        """Measure: the mean of `value` appears in the logs as `train/name`. Never synchronises."""
        mean = value.detach().float().mean() / self.micro_batches
        self.values[name] = self.values[name] + mean if name in self.values else mean

    def global_batch(self, local: int) -> int:
        """Images of one step over all ranks."""
        return local * self.trainer.world_size

    def randn(self, purpose: str, position: Tensor, *shape: int) -> Tensor:
        """N(0,1) [B,*shape]; row i is a function of (seed, purpose, position[i]) alone."""
        return randn_rows(self.seeds(purpose, position), shape, self.device)

    def seeds(self, purpose: str, position: Tensor) -> list[int]:
        """One seed an image of the global stream."""
        return [derive_seed(self.seed, purpose, p) for p in position.tolist()]

    @property
    def player_names(self) -> list[str]:
        """The players, in the order of their optimizers."""
        return list(self._optimizer_of)

    def _optimizer(self, player: str) -> Any:
        found = self.optimizers()
        return (found if isinstance(found, list) else [found])[self.player_names.index(player)]

    def _finite(self, norm: Tensor, player: str) -> bool:
        if bool(torch.isfinite(norm)):
            self.nonfinite_in_a_row = 0
            return True
        self.nonfinite += 1
        self.nonfinite_in_a_row += 1
        if self.nonfinite_in_a_row >= self.max_nonfinite:
            raise NotFinite(
                f"the gradient of {player} was not finite {self.nonfinite_in_a_row} steps in a row "
                f"(images seen: {self.images_seen}); expected at most {self.max_nonfinite - 1}. "
                "To fix: lower optimizer.lr, or set trainer.precision=32-true"
            )
        return False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer a player, in the order of `add_player`."""
        return [make(getattr(self, name).parameters()) for name, make in self._optimizer_of.items()]

    def train(self, mode: bool = True) -> Method:
        """Frozen networks stay in eval mode."""
        super().train(mode)
        for name in self._frozen:
            getattr(self, name).eval()
        return self

    def is_frozen(self, key: str) -> bool:
        """Whether a weight of this name is not trained, and in no checkpoint."""
        return key.split(".", 1)[0] in self._frozen

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen networks out; add the clock and what identifies the run."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not self.is_frozen(k)}
        checkpoint["images_seen"], checkpoint["nonfinite"] = self.images_seen, self.nonfinite
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
        self.images_seen, self.nonfinite = checkpoint["images_seen"], checkpoint["nonfinite"]
