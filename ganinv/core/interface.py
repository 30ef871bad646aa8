"""The contracts by which rooms on one floor know each other: structural types, nothing else."""

from __future__ import annotations

from collections.abc import Mapping as Map
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
    cutoff: int  # layers of wp that are truncated
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
        noise: Noise | Map[str, Tensor] = "const",
        seeds: Sequence[int] | None = None,
        weights: Map[str, Tensor] | None = None,
    ) -> Tensor:
        """Synthesise; `noise` and `weights` as in `Inversion`."""
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


@dataclass(frozen=True)
class Target:
    """B images that are to be inverted."""

    x: Tensor  # [B,3,H,W] in [-1,1]
    s: Tensor  # [B,C,H,W], what the encoder reads of them; x itself when the task is image
    key: list[str]  # name of each image
    seeds: list[int]  # of each image's random numbers: functions of its key, not of its batch
    mask: Tensor | None = None  # [B,1,H,W], 1 where x counts
    attributes: Tensor | None = None  # [B,A], of a dataset that knows them


@dataclass(frozen=True)
class Inversion:
    """What an inversion method found for B images. It holds no image: `Model.render` makes it, so
    that an edit can never be stale."""

    wp: Tensor  # [B,L,D]
    f: Tensor | None = None  # [B,C,h,h], replaces G's features at h px
    noise: Map[str, Tensor] | None = None  # name of G's noise buffer -> [B,1,r,r]
    weights: Map[str, Tensor] | None = None  # name of G's parameter -> its change, [B,*shape]
