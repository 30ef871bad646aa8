"""A trained encoder with its generator: what every export writes and every import gives.

image  [B,C,H,W] in [-1,1], RGB, of `input_size` px    wp [B,L,D]
x_hat  [B,3,R,R] in about [-1,1], the generator's full size, with its stored noise

encoders of pSp, e4e    wp = E(image) + w_avg, or E(image) where it was trained so
encoders of IDInvert    wp = E(image)
encoders of ReStyle     wp_0 = w_avg,  wp_t = wp_{t-1} + E(image, G(wp_{t-1})),  t = 1 ... steps
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.latent import repeat_w
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.interop.encoder import ITERATIVE

STEPS = 5  # of ReStyle's encoders, in training and inference (arXiv 2104.02699, sec. 3)


class Inverter(nn.Module):
    """image -> wp -> image, frozen and in eval mode.

    Args:
        encoder: E, built with `architecture`.
        generator: G, of the same L and D.
        architecture: the encoder's constructor's arguments.
        start_from_w_avg: whether E's output is an offset from w_avg.
        steps: of an encoder that refines.
        config: the resolved config of the training run, {} where there is none.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        generator: AnyGenerator,
        architecture: dict[str, Any],
        start_from_w_avg: bool,
        steps: int = STEPS,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.generator: AnyGenerator
        self.encoder, self.generator = encoder, generator
        self.architecture, self.config = architecture, config or {}
        self.start_from_w_avg, self.steps = start_from_w_avg, steps
        self.kind = type(encoder).__name__
        size = encoder.input_size
        assert isinstance(size, tuple)
        self.input_size: tuple[int, int] = size
        self.num_ws, self.w_dim = generator.num_ws, generator.w_dim
        self.input_nc: int = architecture["input_nc"]
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.contiguous_format)

    @property
    def refines(self) -> bool:
        """Whether the encoder reads the present reconstruction beside the image."""
        return self.kind in ITERATIVE

    @property
    def image_channels(self) -> int:
        """Channels C of the image that `encode` takes."""
        return self.input_nc - 3 if self.refines else self.input_nc

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1,1] -> wp [B,L,D].

        Raises:
            ValueError: an image of another size or other channels.
        """
        expected = (self.image_channels, *self.input_size)
        if image.ndim != 4 or tuple(image.shape[1:]) != expected:
            sizes = ",".join(map(str, expected))
            raise ValueError(
                f"an image of shape {tuple(image.shape)}; expected [B,{sizes}] in [-1,1]"
            )
        if self.refines:
            return self._refine(image)
        codes: Tensor = self.encoder(image)
        return codes + self.generator.w_avg if self.start_from_w_avg else codes

    def _refine(self, image: Tensor) -> Tensor:
        wp = repeat_w(self.generator.w_avg.expand(image.shape[0], -1), self.num_ws)
        for _ in range(self.steps):
            y = F.adaptive_avg_pool2d(self.decode(wp), self.input_size)
            wp = wp + self.encoder(torch.cat([image, y], dim=1))
        return wp

    def decode(self, wp: Tensor) -> Tensor:
        """wp [B,L,D] -> x_hat [B,3,R,R] in about [-1,1], not clamped."""
        x_hat: Tensor = self.generator.synthesis(wp, noise="const")
        return x_hat

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image [B,C,H,W] -> wp [B,L,D], x_hat [B,3,R,R]."""
        wp = self.encode(image)
        return wp, self.decode(wp)
