"""How a method's networks move: one player at a time, down the mean over micro-batches and ranks.

    wp = self.descend("E", self.loss_E, s, x, position)        one optimizer step of player E

freezes the other players, cuts the tensors into `micro_batches`, calls `loss_E` on each, logs what
it measured, descends the weighted total, averages the gradient over ranks, clips, and steps. A loss
function returns its losses, name -> (weight, [B]), and beside them whatever it hands out, which
`descend` returns for the whole batch, detached. Methods of several passes a step call `accumulate`
for each but the last, which is `descend`: ranks exchange gradients during its last backward pass.

N micro-batches, or N processes, take the step of one N times larger batch, for any number of
players; but for what looks at a batch as a whole: batch normalisation takes its statistics over a
micro-batch, whatever `trainer.sync_batchnorm` says, and so does minibatch deviation
(docs/CLUSTER.md).

Where a gradient is NaN or Inf, that player and those after it do not move in this step, and the
players' buffers (running statistics) are put back. Each player counts such steps on its own. All of
it is decided on the device (`skipped.py`): a step reads nothing out and waits for nothing.

A backward pass runs outside autocast, so that every operation has the precision of its forward
one, and second derivatives (gradient penalties) are float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ganinv.core.op.dense import full
from ganinv.loss.term import Losses, total
from ganinv.method.skipped import Buffers, SkippedSteps
from ganinv.optimizer.scale import scale_for_batch
from ganinv.optimizer.schedule import set_lr_factor
from ganinv.optimizer.skip import step_unless

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Players(pl.LightningModule):
    """The networks that a method trains.

    Args:
        micro_batches: parts into which each batch is cut; must divide the batch size.
        clip_norm: largest gradient norm of a player, None for no clipping.
        max_nonfinite: steps in a row in which the gradient of one player may be NaN or Inf (each is
            skipped and counted) before the run stops, when the logs are next written.
    """

    automatic_optimization = False
    images_seen: int

    def __init__(self, *, micro_batches: int, clip_norm: float | None, max_nonfinite: int) -> None:
        super().__init__()
        self.micro_batches, self.clip_norm = micro_batches, clip_norm
        self.skipped = SkippedSteps(most=max_nonfinite)
        self.values: dict[str, Tensor] = {}  # what the last step measured
        self.rate_factor = 1.0  # of every player's rate: the trainer's, for the end of a run
        self._optimizer_of: dict[str, OptimizerFactory] = {}
        self._before = Buffers()
        self._moves: Counter[str] = Counter()  # of each player in this step

    def add_player(self, name: str, network: nn.Module, optimizer: OptimizerFactory) -> None:
        """Register a network that this method trains, under the letter its step uses."""
        setattr(self, name, network)
        self._optimizer_of[name] = optimizer

    @property
    def player_names(self) -> list[str]:
        """The players, in the order of their optimizers."""
        return list(self._optimizer_of)

    def optimizer_of(self, player: str) -> Any:
        """The optimizer of a player, in Lightning's wrapper."""
        found = self.optimizers()
        return (found if isinstance(found, list) else [found])[self.player_names.index(player)]

    def scale_optimizers(self, k: float) -> None:
        """Adapt every player's optimizer to a batch k times as large as its settings are for."""
        found = self._optimizer_of
        self._optimizer_of = {name: scale_for_batch(found[name], k) for name in found}

    def schedule(self, player: str) -> float:
        """The player's rate at `images_seen`, as a factor of the one it was made with."""
        return 1.0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer a player, in the order of `add_player`."""
        return [make(getattr(self, name).parameters()) for name, make in self._optimizer_of.items()]

    # ------------------------------------------------------------------ a step

    def begin_step(self) -> None:
        """Forget what the last step measured, skipped and moved."""
        self.values = {}
        self.skipped.begin()
        self._moves.clear()

    def descend(self, player: str, loss: Callable[..., Any], *tensors: Tensor) -> Any:
        """Move `player` one optimizer step down the mean of `loss` over micro-batches and ranks.

        Args:
            player: a name given to `add_player`.
            loss: of a micro-batch of `tensors` -> losses, name -> (weight, [B]); or such losses and
                tensors [B,...] to hand out.
            tensors: [B,...], cut along B.

        Returns:
            What `loss` handed out, of the whole batch and detached: nothing, a tensor, or several.
        """
        handed_out = self._backpropagate(player, loss, tensors, last=True)
        self.move(player)
        return handed_out

    def accumulate(self, player: str, loss: Callable[..., Any], *tensors: Tensor) -> Any:
        """Add the gradient of `loss` to that of `player`; as `descend`, but without the step.

        A value that an earlier pass of the same step measured under the same name is replaced in
        the logs; totals add up.
        """
        return self._backpropagate(player, loss, tensors, last=False)

    def _backpropagate(
        self, player: str, loss: Callable[..., Any], tensors: tuple[Tensor, ...], *, last: bool
    ) -> Any:
        """`accumulate`; `last`: the player moves next, so gradients leave for the other ranks."""
        self._before.keep(getattr(self, name) for name in self.player_names)
        prefix = "" if player == "E" else f"{player}/"
        measured: dict[str, Tensor] = {}
        handed_out: list[tuple[Tensor, ...]] = []
        parts = zip(*(t.tensor_split(self.micro_batches) for t in tensors), strict=True)
        with self._only(player):
            for i, part in enumerate(parts, 1):
                found = loss(*part)
                returned: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
                sends = last and i == self.micro_batches
                with self._sending_gradients(player) if sends else nullcontext():
                    self._add(returned[0], prefix, measured)
                handed_out.append(tuple(tensor.detach() for tensor in returned[1:]))
        total_before = self.values.get(f"{prefix}total")
        self.values |= measured
        if total_before is not None:
            self.values[f"{prefix}total"] = total_before + self.values[f"{prefix}total"]
        whole = [torch.cat(tensors) for tensors in zip(*handed_out, strict=True)]
        return None if not whole else whole[0] if len(whole) == 1 else tuple(whole)

    def _add(self, losses: Losses, prefix: str, measured: dict[str, Tensor]) -> None:
        """One micro-batch: backpropagate its total, add its means to `measured`."""
        descended = total(losses)
        with torch.autocast(descended.device.type, enabled=False):
            self.manual_backward(descended / self.micro_batches)
        values = {name: value for name, (_, value) in losses.items()}
        for name, value in (values | {"total": descended}).items():
            mean = full(value.detach()).mean() / self.micro_batches
            name = prefix + name
            measured[name] = measured[name] + mean if name in measured else mean

    def move(self, player: str) -> None:
        """One optimizer step of `player` down the gradients accumulated so far; none if they are
        NaN or Inf, or those of an earlier move of this step were."""
        self._reduce_gradients(player)
        self._moves[player] += 1
        parameters = [p for p in getattr(self, player).parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        self.values[f"grad_norm/{player}"] = norm
        skip = self.skipped.count(player, norm.isfinite(), self.images_seen)
        optimizer = self.optimizer_of(player)
        set_lr_factor(optimizer, self.rate_factor * self.schedule(player))
        step_unless(skip, optimizer)
        optimizer.zero_grad(set_to_none=True)
        self._before.put_back(skip)

    @contextmanager
    def _only(self, player: str) -> Iterator[None]:
        """Within this block only the weights of `player` take gradients."""
        for name in self.player_names:
            getattr(self, name).requires_grad_(name == player)
        try:
            yield
        finally:
            for name in self.player_names:
                getattr(self, name).requires_grad_(True)

    # ------------------------------------------------------------------ ranks

    def _sending_gradients(self, player: str) -> AbstractContextManager[None]:
        """A block with the last backward pass before `player` moves, whose gradients leave as they
        are complete."""
        sending = getattr(self.trainer.strategy, "sending_gradients", None)
        if sending is None:
            return nullcontext()
        which = f"move {self._moves[player] + 1} of {player}"  # passes of one name are alike
        found: AbstractContextManager[None] = sending(
            which, list(getattr(self, player).parameters())
        )
        return found

    def _reduce_gradients(self, player: str) -> None:
        """Average a player's gradients over ranks; the trainer's strategy knows how."""
        reduce = getattr(self.trainer.strategy, "reduce_gradients", None)
        if reduce is not None:
            reduce(list(getattr(self, player).parameters()))
        elif self.trainer.world_size > 1:
            raise AssertionError("several processes without ganinv.trainer.strategy.Replicas")

    def reduce_mean(self, tensors: list[Tensor]) -> None:
        """Average statistics over ranks, in place, so that no rank drifts from the others."""
        if self.trainer.world_size > 1:
            self.trainer.strategy.reduce_mean(tensors)  # type: ignore[attr-defined]

    def gather(self, mine: Tensor) -> tuple[Tensor, slice]:
        """The values of all ranks in the order of the stream, and where this rank's are among them.

        Rank r of N holds positions r, r + N, r + 2N ... of a step (`dataset/stream.py`).
        """
        world = self.trainer.world_size
        if world == 1:
            return mine, slice(None)
        everyone = torch.as_tensor(self.all_gather(mine))  # [N,B,...]
        return everyone.transpose(0, 1).flatten(0, 1), slice(self.global_rank, None, world)

    def global_batch(self, local: int) -> int:
        """Images of one step over all ranks."""
        return local * self.trainer.world_size
