"""One model: an encoder E with its generator G, and the one place where images become codes and
codes become images. Training, evaluation, `ganinv invert`, `ganinv.load` and every export use it.

    x      [B,3,H,W]  image in [-1,1]           s      [B,C,H,W]  what E reads of it: the task's
    wp     [B,L,D]    codes, absolute           x_hat  [B,3,R,R]  G(wp), not clamped

    encoders of pSp, e4e    wp = w_avg + E(s), or E(s) where it was trained so
    encoders of IDInvert    wp = E(s)
    encoders of ReStyle     wp_0 = w_avg,  y_0 = G(wp_0) at H x W px
                            wp_t = wp_{t-1} + E(s, y_{t-1}),  y_t = G(wp_t),  t = 1 ... refinements
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.image import pool_and_crop, to_unit
from ganinv.core.interface import Batch, Inversion, Noise
from ganinv.core.latent import repeat_w, truncate
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.task.task import Task


def render(
    G: AnyGenerator,
    found: Inversion,
    noise: Noise = "const",
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """The image of an inversion, [B,3,R,R] in about [-1,1], not clamped; see `Model.render`."""
    given = {"f": found.f, "weights": found.weights}
    x_hat: Tensor = G.synthesis(
        found.wp,
        noise=noise if found.noise is None else found.noise,
        seeds=seeds,
        **{name: value for name, value in given.items() if value is not None},
    )
    return x_hat


def joined(parts: Sequence[Inversion], device: torch.device) -> Inversion:
    """Inversions of the same method as one batch on the device. A weight that some of them do not
    change counts as unchanged there.
    """

    def cat(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        if not known:
            return None
        full = [torch.zeros_like(known[0]) if value is None else value for value in values]
        return torch.cat(full).to(device)

    groups: dict[str, Any] = {}
    for group in ("noise", "weights"):
        maps = [getattr(part, group) or {} for part in parts]
        names = dict.fromkeys(name for found in maps for name in found)
        groups[group] = {n: cat([found.get(n) for found in maps]) for n in names} or None
    wp = torch.cat([part.wp for part in parts]).to(device)
    return Inversion(wp, cat([part.f for part in parts]), **groups)


class Model(nn.Module):
    """E + G. Neither copied nor frozen here: training moves E, `freeze` is for everybody else.

    Args:
        encoder: E; of an encoder that refines, it reads s and a reconstruction beside it.
        generator: G, of the same L and D.
        task: what E reads of an image.
        start_from_w_avg: whether E's output is an offset from w_avg.
        refinements: passes of an encoder that refines its own result; 0: one plain pass.
        image_size: (H, W) px of s; None: what E says.
        architecture: E's constructor's arguments, which exports write down; None in training.
    """

    E: nn.Module
    G: AnyGenerator

    def __init__(
        self,
        *,
        encoder: nn.Module,
        generator: nn.Module,
        task: Task,
        start_from_w_avg: bool,
        refinements: int = 0,
        image_size: tuple[int, int] | None = None,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.E, self.G, self.task = encoder, generator, task  # type: ignore[assignment]
        self.start_from_w_avg, self.refinements = start_from_w_avg, refinements
        self.architecture = architecture or {}
        size: Any = encoder.input_size if image_size is None else image_size
        self.input_size: tuple[int, int] = (size[0], size[1])
        self._average: Tensor | None = None

    @property
    def kind(self) -> str:
        """The name of E's class."""
        return type(self.E).__name__

    @property
    def input_nc(self) -> int:
        """Channels that E reads: those of s and, where it refines, of a reconstruction."""
        return self.task.channels + (3 if self.refinements else 0)

    @property
    def num_ws(self) -> int:
        """L."""
        return self.G.num_ws

    @property
    def w_dim(self) -> int:
        """D."""
        return self.G.w_dim

    def freeze(self) -> Model:
        """In eval mode, without gradients of weights; returns itself."""
        return self.eval().requires_grad_(False)

    # ------------------------------------------------------------------ image -> codes

    def encoder_input(
        self, x: Tensor, source: Tensor | None, seeds: Sequence[int], training: bool = False
    ) -> Tensor:
        """s [B,C,H,W] of x [B,3,H,W] and of what is stored beside it; see `Task`."""
        return self.task(x, source, seeds, training)

    def encode(self, s: Tensor, **how: Any) -> Tensor:
        """s [B,C,H,W] in [-1,1] -> wp [B,L,D].

        Args:
            s: as `encoder_input` makes it.
            how: further arguments of E, e.g. e4e's stage.

        Raises:
            ValueError: an input of another size or of other channels.
        """
        self.check_input(s)
        if not self.refinements:
            codes: Tensor = self.E(s, **how)
            return self.G.w_avg + codes if self.start_from_w_avg else codes
        wp, y = self.average(s)
        for t in range(self.refinements):
            y = self.render(wp, s.shape[-2:]) if t else y
            wp = wp + self.E(torch.cat([s, y], 1), **how)
        return wp

    def passes(
        self,
        s: Tensor,
        noise: Noise = "const",
        seeds: Sequence[list[int] | None] | None = None,
        **how: Any,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(wp_t [B,L,D], y_t [B,3,H,W]) of every refinement; the next one sees them detached, so
        that gradients stay within a pass.

        Args:
            s: as in `encode`.
            noise: G's.
            seeds: of random noise, one list a pass.
            how: as in `encode`.
        """
        wp, y = self.average(s)
        for t in range(self.refinements):
            wp = wp.detach() + self.E(torch.cat([s, y.detach()], 1), **how)
            y = self.render(wp, s.shape[-2:], noise, None if seeds is None else seeds[t])
            yield wp, y

    def average(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """wp_0 [B,L,D] and y_0 [B,3,H,W], where refining starts."""
        batch = s.shape[0]  # not len(s), which torch.export takes for a constant
        wp = repeat_w(self.G.w_avg.expand(batch, -1), self.num_ws)
        return wp, self.average_image(s.shape[-2:]).expand(batch, -1, -1, -1)

    def average_image(self, size: torch.Size) -> Tensor:
        """y_0 [1,3,*size], made once, in float32 whatever autocast says."""
        device = self.G.w_avg.device
        if self._average is None or self._average.shape[-2:] != size:
            plain = torch.autocast(device.type, enabled=False)
            with torch.inference_mode(False), torch.no_grad(), plain:
                wp = repeat_w(self.G.w_avg[None], self.num_ws)
                self._average = self.render(wp, size)
        return self._average.to(device)

    def check_input(self, s: Tensor) -> None:
        """Refuse what E cannot read.

        Raises:
            ValueError: naming both shapes.
        """
        expected = (self.task.channels, *self.input_size)
        if s.ndim != 4 or tuple(s.shape[1:]) != expected:
            sizes = ",".join(map(str, expected))
            raise ValueError(f"an image of shape {tuple(s.shape)}; expected [B,{sizes}] in [-1,1]")

    # ------------------------------------------------------------------ codes -> image

    def render(
        self,
        found: Inversion | Tensor,
        size: Sequence[int] | None = None,
        noise: Noise = "const",
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """The image of an inversion, or of plain codes wp [B,L,D].

        Args:
            found: what an inversion method found; its own noise maps come before `noise`.
            size: (H, W) px: G's square image averaged down to the longer side and, of a wide or
                tall size, the middle of it (released cars: 512 -> 256, lines 32 to 223). None: all
                of G's R x R px.
            noise: G's, see `Synthesis`.
            seeds: of random noise, one an image.

        Returns:
            x_hat [B,3,*size] in about [-1,1], not clamped.
        """
        code = found if isinstance(found, Inversion) else Inversion(wp=found)
        x_hat = render(self.G, code, noise, seeds)
        return x_hat if size is None else pool_and_crop(x_hat, size)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """s [B,C,H,W] -> wp [B,L,D], x_hat [B,3,R,R]."""
        wp = self.encode(image)
        return wp, self.render(wp)

    # ------------------------------------------------------------------ images of a batch

    def images(self, batch: Batch, seed: int) -> Tensor:
        """x [B,3,H,W] in [-1,1]: the batch's own or, of a synthetic dataset, samples of G."""
        if "image" in batch:
            return to_unit(batch["image"])
        size = batch["synthetic"]["image_size"]
        return self.render(self.sample(batch, seed), size).clamp(-1, 1)

    @torch.no_grad()
    def sample(self, batch: Batch, seed: int) -> Tensor:
        """wp [B,L,D] of a synthetic batch: truncated samples, a function of (seed, position)."""
        recipe = batch["synthetic"]
        purpose = f"synthetic-{recipe['split']}"
        seeds = [derive_seed(seed, purpose, p) for p in batch["position"].tolist()]
        z = randn_rows(seeds, (self.G.z_dim,), self.G.w_avg.device)
        wp = repeat_w(self.G.mapping(z), self.num_ws)
        return truncate(wp, self.G.w_avg, recipe["psi"], recipe["cutoff"])
