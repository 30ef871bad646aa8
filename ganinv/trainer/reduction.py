"""Gradients averaged over ranks in buckets, which leave while the backward pass still runs.

A player's parameters are laid out from the last registered one to the first, roughly the order in
which a backward pass comes to them, and cut into buckets of `trainer.bucket_mb`. This layout is a
function of the network and the setting alone. A ring of ranks sums in an order that depends on an
element's place in its bucket, so a gradient keeps its place whatever is sent beside it, and the
mean is the same bit for bit whether it leaves early or late, before or after a resume.

    likely    the parameters that had a gradient on any rank in the same pass of the last step
    early     in the backward pass of the last micro-batch: the next bucket leaves, asynchronously,
              once all its likely parameters have their gradient
    late      after it: the ranks' CPUs tell one another who holds a gradient that has not left.
              Such gradients leave in buckets of the same layout, with zeros in all other places

`likely`, and so the order of the early buckets, is the same on all ranks whatever the timing; a
bucket that waits for a gradient this rank does not have leaves at the end of the pass. A parameter
without a gradient on this rank counts as zeros; without one on any rank, it has none afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

ALIGNED = 16  # elements; optimizers read gradients in wide words
SENT_AS = {None: None, "bf16": torch.bfloat16}  # trainer.gradient_compression -> type on the wire


@dataclass(frozen=True)
class Bucket:
    """Parameters of one type, by their indices, each at its offset among `length` elements."""

    members: tuple[int, ...]
    offsets: tuple[int, ...]
    length: int


def buckets_of(parameters: Sequence[nn.Parameter], most: int) -> list[Bucket]:
    """The parameters from the last to the first, in buckets of one type that are full at `most`
    bytes; every index is in one bucket."""
    found: list[Bucket] = []
    members: list[int] = []
    offsets = [0]
    for i in reversed(range(len(parameters))):
        p = parameters[i]
        members.append(i)
        offsets.append(offsets[-1] + -(-p.numel() // ALIGNED) * ALIGNED)
        full = offsets[-1] * p.element_size() >= most
        if full or i == 0 or parameters[i - 1].dtype != p.dtype:
            found.append(Bucket(tuple(members), tuple(offsets[:-1]), offsets[-1]))
            members, offsets = [], [0]
    return found


@dataclass
class Sent:
    """A bucket under way: what leaves of it, and what is to be waited for."""

    bucket: Bucket
    wanted: frozenset[int]
    flat: Tensor
    work: Any


class Round:
    """One average of one player's gradients.

    Args:
        parameters: the player's.
        likely: those that are sent early, by their indices.
        settings: of the run.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], likely: frozenset[int], settings: Reduction
    ) -> None:
        self.parameters, self.likely, self.settings = list(parameters), likely, settings
        self.buckets = buckets_of(self.parameters, settings.bucket_bytes)
        self.under_way: list[Sent] = []
        self._early = [b for b in self.buckets if not likely.isdisjoint(b.members)]
        self._missing = [likely.intersection(b.members) for b in self._early]
        self._place = {i: k for k, b in enumerate(self._early) for i in b.members}
        self._left_with: set[int] = set()  # early, with a gradient of this rank

    def arrived(self, i: int, _: Tensor) -> None:
        """Parameter i has its gradient of this backward pass; send what is complete, in order."""
        if i not in self._place:
            return
        self._missing[self._place[i]] -= {i}
        while len(self.under_way) < len(self._early) and not self._missing[len(self.under_way)]:
            self._send_next()

    def finish(self) -> frozenset[int]:
        """Send the rest, wait for all of it, and make every `.grad` the mean over ranks.

        Returns:
            The parameters that had a gradient on any rank.
        """
        while len(self.under_way) < len(self._early):
            self._send_next()
        early, late = self._held_anywhere()
        for bucket in self.buckets:
            if not late.isdisjoint(bucket.members):
                self._send(bucket, late)
        for k, sent in enumerate(self.under_way):
            self._receive(sent, early if k < len(self._early) else late)
        return early | late

    def _send_next(self) -> None:
        bucket = self._early[len(self.under_way)]
        self._left_with |= self._send(bucket, self.likely)

    def _send(self, bucket: Bucket, wanted: frozenset[int]) -> set[int]:
        """Hand a bucket to an all-reduce; returns whose gradients it took from this rank."""
        first = self.parameters[bucket.members[0]]
        kind = SENT_AS[self.settings.compression] or first.dtype
        flat = torch.zeros(bucket.length, dtype=kind, device=first.device)
        places, gradients, taken = [], [], set()
        for i, place in self._places(bucket, flat):
            gradient = self.parameters[i].grad
            if i in wanted and gradient is not None:
                places.append(place)
                gradients.append(gradient)
                taken.add(i)
                self.parameters[i].grad = None  # what comes after this leaves late
        if places:
            with torch.no_grad():
                torch._foreach_copy_(places, gradients)
        work = dist.all_reduce(flat, group=self.settings.group, async_op=True)
        self.settings.bytes_sent += flat.numel() * flat.element_size()
        self.under_way.append(Sent(bucket, wanted, flat, work))
        return taken

    def _receive(self, sent: Sent, held: frozenset[int]) -> None:
        """Wait for a bucket; its means become the gradients of those that any rank held."""
        sent.work.wait()
        kind = self.parameters[sent.bucket.members[0]].dtype
        mean = sent.flat.to(kind).div_(dist.get_world_size(self.settings.group))
        for i, place in self._places(sent.bucket, mean):
            if i in sent.wanted & held:
                p = self.parameters[i]
                p.grad = place if p.grad is None else p.grad.add_(place)

    def _places(self, bucket: Bucket, flat: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each parameter's part of a flat tensor, shaped and laid out in memory as it is."""
        for i, offset in zip(bucket.members, bucket.offsets, strict=True):
            p = self.parameters[i]
            yield i, flat.as_strided(p.shape, p.stride(), offset)

    def _held_anywhere(self) -> tuple[frozenset[int], frozenset[int]]:
        """Whose gradients left early from any rank, and whose any rank still holds."""
        early = [i in self._left_with for i in range(len(self.parameters))]
        late = [p.grad is not None for p in self.parameters]
        known = torch.tensor([early, late], dtype=torch.uint8)
        dist.all_reduce(known, dist.ReduceOp.MAX, group=self.settings.cpus)
        found = [frozenset(row.nonzero().flatten().tolist()) for row in known]
        return found[0], found[1]


class Reduction:
    """How this run averages gradients, and what it expects of the next backward pass.

    Args:
        bucket_bytes: size at which a bucket is full.
        compression: type in which buckets are sent and summed; None for the gradients' own.
        group: the ranks; one of its own, lest other collectives of a backward pass (synchronised
            batch normalisation) queue behind the buckets. None for the default one.
        cpus: the same ranks, for what their CPUs know.
    """

    def __init__(
        self, *, bucket_bytes: int, compression: Literal["bf16"] | None, group: Any, cpus: Any
    ) -> None:
        self.bucket_bytes, self.compression = bucket_bytes, compression
        self.group, self.cpus = group, cpus
        self.bytes_sent = 0  # by this rank so far
        self._likely: dict[str, frozenset[int]] = {}
        self._open: tuple[str, Round] | None = None

    @contextmanager
    def during_backward(self, which: str, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        """A block with the last backward pass before `finish`.

        Args:
            which: a name for this pass, the same on every rank; passes of one name have mostly the
                same graph.
            parameters: the player's, each with `requires_grad`.
        """
        opened = Round(parameters, self._likely.get(which, frozenset()), self)
        self._open = which, opened
        hooks = [
            p.register_post_accumulate_grad_hook(partial(opened.arrived, i))
            for i, p in enumerate(opened.parameters)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make `.grad` of the parameters the mean over ranks; all of it is sent now where
        `during_backward` did not come before."""
        if self._open is None:
            Round(parameters, frozenset(), self).finish()
            return
        (which, opened), self._open = self._open, None
        if any(p is not q for p, q in zip(parameters, opened.parameters, strict=True)):
            raise AssertionError("other parameters than those of the backward pass")
        self._likely[which] = opened.finish()
