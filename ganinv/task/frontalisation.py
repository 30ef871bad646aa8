"""Frontalisation: a face to the same face seen from the front, without frontal targets.

Source: Richardson et al., arXiv 2008.00951, sec. 4.2. Input and target are mirrored independently,
so the encoder cannot know which way the target looks, and with a small pixel weight and a large
identity weight (`experiment=psp_frontalisation_ffhq1024`) it learns the pose between the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganinv.core.seed import derive_seed, randint_rows
from ganinv.task.image import Image


class Frontalisation(Image):
    """s = x, mirrored or not."""

    def __call__(
        self, x: Tensor, source: Tensor | None, seeds: Sequence[int], training: bool
    ) -> Tensor:
        """x; in training each image is mirrored with probability 1/2."""
        if not training:
            return x
        sides = randint_rows([derive_seed(seed, "mirror") for seed in seeds], 2, 1, x.device)
        return torch.where(sides[:, :, None, None] == 1, x.flip(-1), x)
