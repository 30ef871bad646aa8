"""e4e's encoder: one code, and an offset from it for every further style input, opened one by one.

Source: Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", arXiv 2102.02766,
sec. 4.1 and 4.2. The state dict has exactly the keys of omertov/encoder4editing, which are also
pSp's: only the name of the class tells the two apart.

    wp_0 = w,   wp_i = w + delta_i for i <= stage,   wp_i = w for the others      [B,L,D]

Differs from the released code in: the stage is an argument of the call, not a state of the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ganinv.encoder.psp import PyramidEncoder

W_ONLY = 0  # the first stage: every style input gets w


def add_offsets(codes: Tensor, num_ws: int) -> Tensor:
    """w, delta_1, ..., delta_k [B,k+1,D] -> wp [B,L,D]; the layers after k get w."""
    w, deltas = codes[:, :1], codes[:, 1:]
    closed = num_ws - codes.shape[1]
    return w + torch.cat([torch.zeros_like(w), F.pad(deltas, (0, 0, 0, closed))], dim=1)


class Encoder4Editing(PyramidEncoder):
    """e4e. `stage` = k opens delta_1 ... delta_k; `last_stage` = L - 1 opens all."""

    @property
    def last_stage(self) -> int:
        """The stage at which every offset is open."""
        return self.num_ws - 1

    def forward(self, image: Tensor, stage: int | None = None) -> Tensor:
        """image [B,C,H,W] in [-1,1] -> offsets from w_avg [B,L,D].

        Args:
            image: the input.
            stage: the last opened delta, larger ones count as `last_stage`; None opens all.
                Heads that are not open are not computed and receive no gradient.
        """
        opened = self.last_stage if stage is None else min(stage, self.last_stage)
        return add_offsets(self.codes(image, opened + 1), self.num_ws)
