"""The contracts by which rooms on one floor know each other: structural types, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, Protocol, TypedDict, runtime_checkable

from torch import Tensor

Noise = Literal["const", "none", "random"]
SourceKind = Literal["rgb", "grey", "labels"]  # 3 channels, 1 channel, or class numbers


class Recipe(TypedDict):
    """How a synthetic dataset's images are to be drawn from G."""

    split: str  # each has samples of its own
    psi: float  # truncation
    cutoff: int  # rows of wp that are truncated
    image_size: tuple[int, int]  # (H, W) px, averaged down to


class Batch(TypedDict):
    """What every data source yields."""

    image: NotRequired[Tensor]  # uint8 [B,3,H,W], RGB; a synthetic dataset has `synthetic` instead
    synthetic: NotRequired[Recipe]
    key: list[str]  # name of each image
    position: Tensor  # int64 [B], place of each image in the global stream (images seen before it)
    source: NotRequired[Tensor]  # uint8 [B,C0,H,W]: what a paired set stores beside each image


class Mapping(Protocol):
    """z [B,D] -> w [B,D]."""

    def __call__(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map."""
        ...


class Synthesis(Protocol):
    """wp [B,L,D] -> image [B,3,R,R] in about [-1,1] (not clamped)."""

    def __call__(
        self,
        wp: Tensor,
        f: Tensor | None = None,
        noise: Noise = "const",
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Synthesise."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A pretrained generator. Frozen by the method that is given it; always in eval mode."""

    mapping: Mapping
    synthesis: Synthesis
    w_avg: Tensor  # [D]
    num_ws: int  # L
    z_dim: int
    w_dim: int  # D
    resolution: int  # R, px


class Encoder(Protocol):
    """image [B,C,H,W] in [-1,1] -> codes [B,L,D], offsets from w_avg; the method adds w_avg."""

    input_size: tuple[int, int]  # (H, W) px

    def __call__(self, image: Tensor) -> Tensor:
        """Encode."""
        ...


@dataclass
class Inversion:
    """What an inversion method found for B images."""

    wp: Tensor  # [B,L,D]
    image: Tensor  # [B,3,H,W], its reconstruction in about [-1,1]
