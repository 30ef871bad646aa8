"""One image's inversion as a file: what `ganinv invert --method` keeps, and `ganinv export` reads.

A `.safetensors` with, each without a batch,

    wp [L,D]    f [C,h,h]    noise.<name of G's buffer> [1,r,r]    weights.<name of G's parameter>

the last being changes, to be added to G's own; a parameter that does not move is left out. The
metadata name the image, the method, and the generator by its path and sha256.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, WeightsError, explain, shown
from ganinv.core.interface import Inversion
from ganinv.core.safe.io import read_safetensors, write_safetensors
from ganinv.generator.importer.bundle import AnyGenerator

FORMAT = "ganinv-inversion"
GROUPS = ("noise", "weights")


def write_inversion(
    path: Path, found: Inversion, row: int, generator: AnyGenerator, about: Mapping[str, Any]
) -> None:
    """Write the inversion of one image of a batch, atomically.

    Args:
        path: the file.
        found: of the batch.
        row: the image's.
        generator: G, whose source and sha256 are written down.
        about: further metadata, plain values: key, method.
    """
    tensors = {"wp": found.wp[row].float()}
    if found.f is not None:
        tensors["f"] = found.f[row].float()
    for group in GROUPS:
        maps: Mapping[str, Tensor] = getattr(found, group) or {}
        for name, value in maps.items():
            if group == "noise" or bool(value[row].any()):
                tensors[f"{group}.{name}"] = value[row].float()
    own = {"generator_source": generator.source, "generator_sha256": generator.sha256}
    write_safetensors(path, tensors, {"format": FORMAT, **own, **about})


def read_inversion(path: Path) -> tuple[Inversion, dict[str, Any]]:
    """The inversion, of a batch of one, and the metadata.

    Raises:
        WeightsMissing, WeightsError: no such file, or another one.
    """
    tensors, metadata = read_safetensors(path)
    wp = tensors.pop("wp", None)
    if metadata.get("format") != FORMAT or wp is None or wp.ndim != 2:
        raise WeightsError(
            explain(f"{path} of the format {shown(metadata.get('format'))}", f"{FORMAT}, with wp",
                    "pass a file of `ganinv invert --method`, in OUT/inversions")
        )  # fmt: skip
    f = tensors.pop("f", None)
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
    for name, value in tensors.items():
        group, _, key = name.partition(".")
        if group not in groups:
            raise WeightsError(
                explain(f"{path} with a tensor {shown(name)}", "wp, f, noise.* and weights.*",
                        "write it anew with this version's `ganinv invert`")
            )  # fmt: skip
        groups[group][key] = value[None]
    parts: dict[str, Any] = {group: values or None for group, values in groups.items()}
    return Inversion(wp[None], None if f is None else f[None], **parts), metadata


def check_generator(path: Path, metadata: Mapping[str, Any], generator: AnyGenerator) -> None:
    """Refuse another generator than the inversion's.

    Raises:
        WeightsError: naming both.
    """
    theirs = metadata.get("generator_sha256")
    if theirs is not None and theirs != generator.sha256:
        raise WeightsError(
            explain(f"{path}, found in a generator with sha256 {shown(theirs)}",
                    f"{generator.sha256}, that of {generator.source}",
                    "pass that generator's file: --generator FILE")
        )  # fmt: skip


def tuned(path: Path, found: Inversion, generator: AnyGenerator) -> AnyGenerator:
    """The generator with the noise maps and the changes of weights of one image in it.

    Args:
        path: of the inversion, for messages; the new generator's source.
        found: a batch of one.
        generator: G; it stays as it is.

    Raises:
        ConfigError: an inversion with f, which no generator can hold.
        WeightsError: changes that are not this generator's.
    """
    if found.f is not None:
        raise ConfigError(
            explain(f"{path}, which has an f (BDInvert's), that replaces the generator's own maps",
                    "codes, noise maps and changes of weights, which a generator can hold",
                    "keep this file: no other program's form has an f")
        )  # fmt: skip
    made = copy.deepcopy(generator)
    own = dict(made.named_parameters()) | dict(made.named_buffers())
    for group in GROUPS:
        for name, value in (getattr(found, group) or {}).items():
            new = value[0, 0] if group == "noise" and value.ndim == 4 else value[0]
            if name not in own or own[name].shape != new.shape:
                raise WeightsError(
                    explain(f"{path} with {group} of {shown(name)} {list(new.shape)}",
                            "what the generator has under that name", "pass its own generator")
                )  # fmt: skip
            with torch.no_grad():
                own[name].copy_(new if group == "noise" else own[name] + new)
    made.source, made.sha256 = str(path), None
    return made.eval().requires_grad_(False)
