"""Steps that are left out because a gradient is NaN or Inf: decided and counted on the device.

    left_out           whether a gradient of the present step was NaN or Inf: the rest of it, this
                       player's move and those after it, is left out
    total              steps left out so far
    in_a_row[player]   of them, those that this player's gradient broke since it last moved
    ended[player]      images seen when in_a_row first reached `most`, -1 before

The CPU enqueues every move alike and learns of the numbers when it reads them, with the logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ganinv.core.errors import NotFinite


def joined(tensors: list[Tensor]) -> Tensor:
    """Tensors of one type as one, [N]."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


class Buffers:
    """The players' buffers (running statistics) as they were before the passes of a move."""

    def __init__(self) -> None:
        self._groups: list[tuple[list[Tensor], Tensor]] = []  # of one type each; as they were, [N]

    def keep(self, networks: Iterable[nn.Module]) -> None:
        """Remember them, unless an earlier pass of the same move did."""
        if self._groups:
            return
        groups: dict[torch.dtype, list[Tensor]] = {}
        for network in networks:
            for buffer in network.buffers():
                groups.setdefault(buffer.dtype, []).append(buffer)
        self._groups = [(group, joined(group)) for group in groups.values()]

    @torch.no_grad()
    def put_back(self, skip: Tensor) -> None:
        """Give them their old values where skip [] holds, and forget these."""
        for group, before in self._groups:
            kept = torch.where(skip, before, joined(group)).split([b.numel() for b in group])
            torch._foreach_copy_(group, [k.view_as(b) for k, b in zip(kept, group, strict=True)])
        self._groups = []


class SkippedSteps:
    """The numbers above.

    Args:
        most: steps in a row at which a run ends.
    """

    def __init__(self, *, most: int) -> None:
        self.most = most
        self.total, self.in_a_row = 0, dict[str, int]()  # as of the last reading
        self._left_out: Tensor | None = None
        self._total: Tensor | None = None
        self._players: dict[str, Tensor] = {}  # in_a_row, ended: int64 [2]

    def restore(self, total: int, in_a_row: Mapping[str, int]) -> None:
        """The numbers of a checkpoint."""
        self.total, self.in_a_row = total, dict(in_a_row)
        self._total, self._players = None, {}

    def begin(self) -> None:
        """A new step."""
        self._left_out = None

    def left_out(self, device: torch.device) -> Tensor:
        """[] bool: see the module."""
        if self._left_out is None:
            self._left_out = torch.zeros((), dtype=torch.bool, device=device)
        return self._left_out

    def count(self, player: str, finite: Tensor, images_seen: int) -> Tensor:
        """Count a move of this player; [] bool, whether it is left out.

        Args:
            player: its name.
            finite: [] bool on the device, whether its gradient is.
            images_seen: before this step.
        """
        before = self.left_out(finite.device)
        broken = ~(finite | before)
        if self._total is None:
            self._total = finite.new_full((), self.total, dtype=torch.int64)
        self._total += broken
        if player not in self._players:
            known = finite.new_full((2,), -1, dtype=torch.int64)
            known[0] = self.in_a_row.get(player, 0)
            self._players[player] = known
        row, ended = self._players[player].unbind()
        row = torch.where(before, row, torch.where(finite, 0, row + 1))
        reached = (row >= self.most) & (ended < 0)
        ended = torch.where(reached, images_seen, ended)
        self._players[player] = torch.stack([row, ended])
        self._left_out = before | ~finite
        return self._left_out

    def read(self) -> None:
        """Wait for the device and bring `total` and `in_a_row` up to date.

        Raises:
            NotFinite: a player's gradient was not finite too often in a row.
        """
        if self._total is None:
            return
        names = list(self._players)
        rows = [self._total.expand(2), *(self._players[name] for name in names)]
        (self.total, _), *found = torch.stack(rows).tolist()
        self.in_a_row |= {name: row for name, (row, _) in zip(names, found, strict=True)}
        for name, (_, ended) in zip(names, found, strict=True):
            if ended >= 0:
                raise NotFinite(
                    f"the gradient of {name} was not finite {self.most} steps in a row "
                    f"(images seen: {ended}); expected at most {self.most - 1}. "
                    "To fix: lower optimizer.lr, or set trainer.precision=32-true"
                )
