"""e4e's discriminator of codes, and the pool of past codes it is shown.

Source: Tov et al., arXiv 2102.02766, sec. 4.2; the pool after Shrivastava et al., arXiv 1612.07828.
The state dict has exactly the keys of omertov/encoder4editing.

    w [N,D]    logits [N,1], higher = more like a w of the mapping network

Differs from the released code in: the pool rests while the module is in eval mode (released: it
also takes in validation codes), draws from a given generator, and is part of the state dict.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain


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

    def __init__(self, *, size: int, w_dim: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(size, w_dim))
        self.count = 0  # codes held so far; on the host, so that reading it never waits for a GPU

    def query(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Codes to show to the discriminator in place of those given.

        Args:
            codes: [B,D], or [B,S,D], of which one code a sample is drawn at random. Detached.
            generator: a CPU generator; the only source of chance.

        Returns:
            [B,D]. In eval mode the drawn codes themselves, and the pool is not touched.
        """
        codes = codes.detach()
        batch = len(codes)
        if codes.ndim == 3:
            drawn = torch.randint(codes.shape[1], (batch,), generator=generator).to(codes.device)
            codes = codes[torch.arange(batch, device=codes.device), drawn]
        if not self.training:
            return codes
        swap = (torch.rand(batch, generator=generator) < 0.5).tolist()
        place = torch.randint(len(self.codes), (batch,), generator=generator).tolist()
        shown = codes.clone()
        for i in range(batch):  # in order: a sample may be swapped for one of its own batch
            if self.count < len(self.codes):
                self.codes[self.count] = codes[i]
                self.count += 1
            elif swap[i]:
                shown[i] = self.codes[place[i]]
                self.codes[place[i]] = codes[i]
        return shown

    def get_extra_state(self) -> int:
        """How much of the pool is filled."""
        return self.count

    def set_extra_state(self, state: Any) -> None:
        """Restore `count`."""
        self.count = int(state)
