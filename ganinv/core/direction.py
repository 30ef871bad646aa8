"""Directions of a latent space, and ganinv's own file of them.

    vectors   [1,D] one for all layers of wp, or [L,D] one for each
    wp_i <- wp_i + strength * scale * vectors_i        i in layers
    score     mean over i of (vectors_i . wp_i + intercept_i), of a direction that is a boundary

The file is a `.safetensors` of the format "ganinv-direction": tensors `direction.<name>`, and
`intercept.<name>` [1] or [L] of boundaries. Metadata: `directions`, name -> {"layers", "scale"};
`generator_sha256`; `fitted`, plain words and numbers on how they were found and what a strength of
1 is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, WeightsError, explain, named, shown
from ganinv.core.safe.io import read_bytes, read_safetensors, write_safetensors

FORMAT = "ganinv-direction"
MAX_LAYERS, MAX_DIRECTIONS, MAX_BYTES = 1 << 10, 1 << 12, 64 << 20
LISTED = 8  # names in a refusal


@dataclass(frozen=True)
class Direction:
    """Where to move a code, and what a step is."""

    name: str
    vectors: Tensor  # [1,D] or [L,D], float32
    layers: tuple[int, ...] | None = None  # of wp that it moves; None: all
    scale: float = 1.0  # distance in W of a strength of 1, of vectors of length 1
    intercept: Tensor | None = None  # [1] or [L], of a boundary
    generator_sha256: str | None = None  # of the generator whose W it lies in
    fitted: Mapping[str, Any] = field(default_factory=dict)  # how it was found

    @property
    def width(self) -> int:
        """D."""
        return self.vectors.shape[1]

    def check_boundary(self) -> None:
        """Refuse a direction that has no two sides.

        Raises:
            ConfigError: there is no intercept.
        """
        if self.intercept is None:
            raise ConfigError(
                explain(f"the direction {named(self.name)}, which has no intercept",
                        "a boundary, which has two sides", "fit one: ganinv fit boundary")
            )  # fmt: skip

    def score(self, wp: Tensor) -> Tensor:
        """wp [B,L,D] -> [B]: the signed distance to the boundary, a mean over the layers it moves.

        Raises:
            ConfigError: as `check_boundary`.
        """
        self.check_boundary()
        assert self.intercept is not None
        distance = (wp * self.vectors.to(wp)).sum(2) + self.intercept.to(wp)  # [B,L]
        return distance[:, list(range(wp.shape[1]) if self.layers is None else self.layers)].mean(1)


def write_directions(path: Path, directions: list[Direction], **about: Any) -> None:
    """Write directions of one generator, atomically.

    Args:
        path: the file.
        directions: each with a name of its own.
        about: further metadata, plain values.
    """
    tensors = {f"direction.{d.name}": d.vectors for d in directions}
    tensors |= {f"intercept.{d.name}": d.intercept for d in directions if d.intercept is not None}
    known = {
        d.name: {"layers": None if d.layers is None else list(d.layers), "scale": d.scale}
        for d in directions
    }
    metadata = {
        "format": FORMAT,
        "directions": known,
        "generator_sha256": directions[0].generator_sha256,
        "fitted": dict(directions[0].fitted),
    }
    write_safetensors(path, tensors, metadata | about)


def read_own(path: Path) -> dict[str, Direction]:
    """The directions of a file of ganinv's own, by name, in its order.

    Raises:
        WeightsMissing, WeightsError: no such file; none of this format, or one that is damaged.
    """
    read_bytes(path, MAX_BYTES, first=0)
    tensors, metadata = read_safetensors(path)
    known, sha256 = metadata.get("directions"), metadata.get("generator_sha256")
    if metadata.get("format") != FORMAT or not isinstance(known, dict) or not known:
        raise refused(path, f"format={shown(metadata.get('format'))}")
    fitted = metadata.get("fitted")
    if len(known) > MAX_DIRECTIONS or not isinstance(fitted, dict):
        raise refused(path, "a description that ganinv did not write")
    if not (sha256 is None or type(sha256) is str):
        raise refused(path, "a generator without a name")
    found = {}
    for name, entry in known.items():
        entry = entry if isinstance(entry, dict) else {}
        layers, scale = entry.get("layers"), entry.get("scale")
        vectors = tensors.get(f"direction.{name}")
        check_vectors(vectors, path)
        assert vectors is not None
        intercept = tensors.get(f"intercept.{name}")
        if intercept is not None and (
            intercept.shape != vectors.shape[:1] or not bool(torch.isfinite(intercept).all())
        ):
            raise refused(path, f"an intercept of {named(name)} that fits no layer")
        if type(scale) is not float or not (math.isfinite(scale) and scale > 0):
            raise refused(path, f"the scale {shown(scale)} of {named(name)}")
        found[name] = Direction(
            name, vectors.float(), checked_layers(layers, path), scale, intercept, sha256, fitted
        )
    return found


def checked_layers(layers: Any, path: Path) -> tuple[int, ...] | None:
    """Layers out of a file.

    Raises:
        WeightsError: no list of layers.
    """
    if layers is None:
        return None
    if (
        type(layers) is not list
        or not layers
        or len(layers) > MAX_LAYERS
        or any(type(n) is not int or not 0 <= n < MAX_LAYERS for n in layers)
    ):
        raise refused(path, "layers that are no list of numbers")
    return tuple(layers)


def check_vectors(vectors: Any, path: Path) -> None:
    """Refuse what is no direction.

    Raises:
        WeightsError: another shape than [1,D] or [L,D], or numbers that are not finite.
    """
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not vectors.numel():
        fault = f"shape {list(vectors.shape)}" if isinstance(vectors, Tensor) else "no tensor"
        raise refused(path, fault)
    if not vectors.is_floating_point() or not bool(torch.isfinite(vectors).all()):
        raise refused(path, "numbers that are not finite")


def refused(path: Path, fault: str) -> WeightsError:
    """A file that holds no direction, in a sentence; to be raised."""
    return WeightsError(
        explain(f"{path} with {fault}", "a direction of shape [D], [1,D] or [1,L,D]",
                "pass the published file, one of `ganinv fit`, or save the direction with "
                "numpy.save as float32")
    )  # fmt: skip


def chosen(directions: Mapping[str, Direction], name: str | None, path: Path) -> Direction:
    """The direction of that name; the only one where no name is given.

    Raises:
        ConfigError: no such name, or no name where there are several.
    """
    listed = ", ".join(named(key) for key in list(directions)[:LISTED]) + (
        ", ..." if len(directions) > LISTED else ""
    )
    if name is None and len(directions) > 1:
        raise ConfigError(
            explain(f"{path}, which holds {len(directions)} directions", f"one of {listed}",
                    f"name it: {path}:{named(next(iter(directions)))}")
        )  # fmt: skip
    name = next(iter(directions)) if name is None else name
    if name not in directions:
        raise ConfigError(
            explain(f"{path} without a direction {name}", f"one of {listed}", f"{path}:NAME")
        )
    return directions[name]
