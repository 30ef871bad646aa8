"""e4e's discriminator of codes, and the pool of past codes it is shown.

Source: Tov et al., arXiv 2102.02766, sec. 4.2; the pool after Shrivastava et al., arXiv 1612.07828.
The state dict has exactly the keys of omertov/encoder4editing.

    w [N,D]    logits [N,1], higher = more like a w of the mapping network

Differs from the released code in: the pool rests while the module is in eval mode (released: it
also takes in validation codes), draws from a given seed, and is part of the state dict.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain
from ganinv.core.seed import derive_seed, randint_rows


class LatentDiscriminator(nn.Module):
    """An MLP of `layers` linear layers with LeakyReLU 0.2 between them.

    Args:
        w_dim: D.
        layers: at least 2; 4 in the paper.
    """

    def __init__(self, *, w_dim: int, layers: int) -> None:
        super().__init__()
        if layers < 2:
            raise ConfigError(explain(f"layers={layers}", "at least 2", "set discriminator.layers"))
        hidden: list[nn.Module] = []
        for _ in range(layers - 1):
            hidden += [nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*hidden, nn.Linear(w_dim, 1))

    def forward(self, w: Tensor) -> Tensor:
        """w [N,D] -> logits [N,1]."""
        logits: Tensor = self.mlp(w)
        return logits


class CodePool(nn.Module):
    """A history of codes: filled first, then half of the codes given are swapped for older ones.

    Args:
        size: codes kept, at least 1 (50 in the released code).
        w_dim: D.
    """

    codes: Tensor
    count: Tensor

    def __init__(self, *, size: int, w_dim: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(size, w_dim))
        count = torch.zeros((), dtype=torch.int64)  # codes held so far, on the device of the codes
        self.register_buffer("count", count, persistent=False)

    def query(self, codes: Tensor, seed: int, skip: Tensor | None = None) -> Tensor:
        """Codes to show to the discriminator in place of those given.

        Args:
            codes: [B,D], or [B,S,D], of which one code a sample is drawn at random. Detached.
            seed: the only source of chance.
            skip: [] bool, whether the pool is to stay as it is after all.

        Returns:
            [B,D]. In eval mode the drawn codes themselves, and the pool is not touched.
        """
        codes = codes.detach()
        batch, size = len(codes), len(self.codes)
        number, slot = (torch.arange(n, device=codes.device) for n in (batch, size))
        if codes.ndim == 3:
            row = randint_rows([derive_seed(seed, "row")], codes.shape[1], batch, codes.device)[0]
            codes = codes[number, row]
        if not self.training:
            return codes
        fills = self.count + number < size  # the first ones, while there is room
        swaps = randint_rows([derive_seed(seed, "swap")], 2, batch, codes.device)[0] == 1
        swaps = swaps & ~fills
        place = randint_rows([derive_seed(seed, "place")], size, batch, codes.device)[0]
        place = torch.where(fills, self.count + number, place)
        goes = (fills | swaps) & (place == slot[:, None])  # [size,B]: code j goes to slot i
        # In order: a sample may be swapped for one of its own batch, the last that went there.
        earlier = goes[place] & (number < number[:, None])  # [B,B]
        before, last = (torch.where(x, number + 1, 0).amax(1) for x in (earlier, goes))  # 0: none
        older = torch.where(before[:, None] > 0, codes[before - 1], self.codes[place])
        held = torch.where(last[:, None] > 0, codes[last - 1], self.codes)
        count = (self.count + batch).clamp(max=size)
        if skip is not None:
            held = torch.where(skip, self.codes, held)
            count = torch.where(skip, self.count, count)
        self.codes.copy_(held)
        self.count.copy_(count)
        return torch.where(swaps[:, None], older, codes)

    def get_extra_state(self) -> int:
        """How much of the pool is filled."""
        return int(self.count)

    def set_extra_state(self, state: Any) -> None:
        """Restore `count`."""
        self.count.fill_(int(state))
