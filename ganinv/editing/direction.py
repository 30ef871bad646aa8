"""A code moved along a direction: from any published file, or from one of `ganinv fit`.

    wp [B,L,D]    wp_i <- wp_i + strength * scale * vectors_i    i in layers

f, noise maps and changes of weights stay. Of an inversion with f (BDInvert) the layers below M are
not read, so they move nothing there.

.safetensors   ganinv's own: of `ganinv fit` (`core/direction.py`) and `ganinv import`
.npy           InterFaceGAN's (1,D), IDInvert's dictionary (1,L,D) with its layers
.pt            a bare tensor (pSp's, e4e's, PTI's interfacegan_directions), or e4e's ganspace_pca:
               {"comp", "mean", "std"}
.npz           GANSpace's components: lat_comp [K,1,D], lat_stdev [K]

Published directions are taken as they are: a strength of 1 is a step of the file's own length, of
GANSpace's components one standard deviation. e4e's code counts a component's strength from the mean
of W; here it is always from the code itself.

Not read: StyleCLIP's global directions (fs3.npy). They are no directions of W+, but of the channels
of every layer's styles, and the text's part of them comes out of CLIP.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.direction import (
    FORMAT,
    Direction,
    check_vectors,
    checked_layers,
    chosen,
    read_own,
    refused,
)
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing, explain, named, shown
from ganinv.core.interface import Inversion
from ganinv.core.safe.io import check_file, load_tensors, read_metadata, sha256_file
from ganinv.core.safe.npz import read_npz
from ganinv.editing.boundary import is_direction, read_boundary
from ganinv.generator.importer.bundle import AnyGenerator

SUFFIXES = (".safetensors", ".npy", ".pt", ".npz")
COMPONENTS = {"comp", "std"}  # of e4e's ganspace_pca


def move(
    found: Inversion,
    direction: Direction,
    strength: float | Tensor,
    layers: Collection[int] | None = None,
) -> Inversion:
    """The inversion with wp moved.

    Args:
        found: of B images.
        direction: which way.
        strength: how far, in units of the direction's scale; below 0: the other way. A number, or
            [B], one for each image.
        layers: of wp that move instead of the direction's own.

    Raises:
        ConfigError: a strength that is no finite number, or a layer that is not there.
        WeightsError: a direction of another width or number of layers.
    """
    lengths = torch.as_tensor(strength, dtype=torch.float64)
    if not bool(lengths.isfinite().all()):
        raise ConfigError(explain(f"strength {strength}", "a finite number", "e.g. 1.5"))
    num_ws, w_dim = found.wp.shape[1:]
    check_shape(direction, num_ws, w_dim)
    moved = direction.layers if layers is None else layers
    moved = range(num_ws) if moved is None else sorted(set(moved))
    if bad := [i for i in moved if not 0 <= i < num_ws]:
        raise ConfigError(
            explain(f"layers {bad} of {direction.name}", f"layers from 0 to {num_ws - 1}",
                    "name others")
        )  # fmt: skip
    lengths = (lengths * direction.scale).to(found.wp).reshape(-1, 1, 1)  # [1,1,1] or [B,1,1]
    step = lengths * direction.vectors.to(found.wp).expand(num_ws, -1)
    wp = found.wp.clone()
    wp[:, list(moved)] += step[:, list(moved)]
    return replace(found, wp=wp)


def check_shape(direction: Direction, num_ws: int, w_dim: int) -> None:
    """Refuse a direction of another space.

    Raises:
        WeightsError: naming both.
    """
    rows, width = direction.vectors.shape
    if width != w_dim or rows not in (1, num_ws):
        given = f"{rows} x {width}" if rows > 1 else f"width {width}"
        raise WeightsError(
            explain(f"the direction {named(direction.name)} of {given}",
                    f"one of width {w_dim}, or {num_ws} x {w_dim}, as the codes are",
                    "take a direction of the same generator")
        )  # fmt: skip


def check_generator(direction: Direction, generator: AnyGenerator) -> None:
    """Refuse a direction that does not lie in this generator's W+.

    Raises:
        WeightsError: another width, number of layers, or, where the file says it, generator.
    """
    check_shape(direction, generator.num_ws, generator.w_dim)
    if direction.layers is not None and max(direction.layers) >= generator.num_ws:
        raise WeightsError(
            explain(f"the direction {named(direction.name)} of layer {max(direction.layers)}",
                    f"layers from 0 to {generator.num_ws - 1}, those of {generator.source}",
                    "take a direction of the same generator")
        )  # fmt: skip
    theirs, own = direction.generator_sha256, generator.sha256
    if theirs is not None and own is not None and theirs != own:
        raise WeightsError(
            explain(f"the direction {named(direction.name)}, fitted on a generator with sha256 "
                    f"{named(theirs)[:12]}", f"{own[:12]}, that of {generator.source}",
                    "fit one on this generator: ganinv fit")
        )  # fmt: skip


# ------------------------------------------------------------------ files


def find_direction(text: str) -> Direction:
    """The direction that `FILE` or `FILE:NAME` means; the suffix may be left out.

    Raises:
        WeightsMissing: no such file.
        WeightsError: none that holds directions.
        ConfigError: a name that is not in it, or several and no name.
    """
    path, name = split_name(text)
    return chosen(read_directions(path), name, path)


def split_name(text: str) -> tuple[Path, str | None]:
    """`FILE:NAME` -> the file that is there, and the name.

    Raises:
        WeightsMissing: no such file.
    """
    whole, colon, name = text.rpartition(":")
    for file, asked in ((text, None), (whole, name)) if colon and name else ((text, None),):
        for suffix in ("", *SUFFIXES):
            if (path := Path(f"{file}{suffix}")).is_file():
                return path, asked
    raise WeightsMissing(
        explain(f"no direction {text}", "a file of one, FILE or FILE:NAME",
                "check the path, or fit one: ganinv fit boundary|sefa|ganspace")
    )  # fmt: skip


def read_directions(path: Path) -> dict[str, Direction]:
    """All directions of a file, by name: the file's own for a single one, numbers for components.

    Raises:
        WeightsMissing: no such file.
        WeightsError: no directions, more than data, or numbers that are not finite.
    """
    check_file(path, "file of directions")
    if path.suffix == ".npz":
        arrays = read_npz(path, ("lat_comp", "lat_stdev"))
        return _components(path, arrays["lat_comp"], arrays["lat_stdev"])
    if path.suffix == ".safetensors" and read_metadata(path).get("format") == FORMAT:
        return read_own(path)
    if path.suffix not in (".safetensors", ".npy"):
        content = load_tensors(path)
        if isinstance(content, dict) and set(content) >= COMPONENTS:
            return _components(path, content["comp"], content["std"])
        if not is_direction(content):
            raise refused(path, f"{shown(content)} instead of a tensor")
    found = read_boundary(path)
    vectors = found.direction.flatten(0, -2) if found.direction.ndim > 1 else found.direction[None]
    name = path.stem.removesuffix("_boundary")
    return {name: Direction(name, vectors, checked_layers(found.layers or None, path))}


def _components(path: Path, vectors: Any, std: Any) -> dict[str, Direction]:
    """GANSpace's [K,1,D], [K,D] or e4e's, with their standard deviations [K]."""
    if not isinstance(vectors, Tensor) or not isinstance(std, Tensor) or vectors.ndim not in (2, 3):
        raise refused(path, "components that are no tensors")
    vectors, std = vectors.flatten(1), std.flatten()
    check_vectors(vectors, path)
    if len(std) != len(vectors) or not bool((torch.isfinite(std) & (std > 0)).all()):
        raise refused(path, "standard deviations that fit no component")
    return {
        str(k): Direction(str(k), vectors[k : k + 1].float(), None, float(std[k]))
        for k in range(len(vectors))
    }


def signed(strength: float) -> str:
    """`-1.5`, `0`, `+3`."""
    return "0" if strength == 0 else f"{strength:+.4g}"


class Along:
    """An edit of `evaluate.py`: along a direction out of a file.

    Args:
        file: FILE or FILE:NAME; None is refused.
        wp_layers: that move instead of the file's own; None: these.
        strengths: that are shown.
        generator: G of the codes.

    Raises:
        WeightsMissing, WeightsError, ConfigError: as `find_direction`, `check_generator`, `move`.
    """

    needs_f = False

    def __init__(
        self,
        *,
        file: str | None,
        wp_layers: Sequence[int] | None,
        strengths: Sequence[float],
        generator: AnyGenerator,
    ) -> None:
        if file is None:
            raise ConfigError(
                explain("editing=direction without a file", "FILE or FILE:NAME of a direction",
                        "add editing.direction.file=smile.safetensors")
            )  # fmt: skip
        self.direction, self.layers = find_direction(file), wp_layers
        self.strengths, self.sha256 = list(strengths), sha256_file(split_name(file)[0])
        check_generator(self.direction, generator)
        move(
            Inversion(torch.zeros(1, generator.num_ws, generator.w_dim)),
            self.direction,
            0,
            wp_layers,
        )

    def __call__(self, found: Inversion, strength: float | Tensor) -> Inversion:
        """Moved that far, see `move`."""
        return move(found, self.direction, strength, self.layers)

    def label(self, strength: float) -> str:
        """Above a strip."""
        return signed(strength)
