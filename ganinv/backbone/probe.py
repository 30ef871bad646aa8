"""Probes: linear heads on a frozen backbone that say of an image what it shows.

    h [B,F]   of the image: stages of the backbone, each averaged down to grid x grid cells, side by
              side; without stages, the backbone's pooled features
    score_a = weight_a . h + bias_a        a number's own unit; of a yes or no, 1 for yes, 0 for no

The file is a `.safetensors` of the format "ganinv-probe" with `weight` [A,F] and `bias` [A]. Its
metadata: `attributes`, name -> {"kind": "number" or "yes_no", "measure": "R2" or "AUC", "test": its
value on a test split that neither the heads nor their choice has seen}; `backbone`, `stages`,
`grid`, `image_size`; `fitted`. `ganinv fit probe` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, WeightsError, explain, named, shown
from ganinv.core.image import pool_and_crop
from ganinv.core.safe.io import read_safetensors, write_safetensors

FORMAT = "ganinv-probe"
ENOUGH = 0.9  # AUC or R2 from which on a claim may rest on a probe
MEASURES = {"yes_no": "AUC", "number": "R2"}
LISTED = 30  # attributes in a refusal
MAX_GRID, MAX_STAGES, MAX_SIDE = 64, 16, 1 << 10


@dataclass(frozen=True)
class Head:
    """What is known of one attribute's probe."""

    name: str
    kind: str  # a key of `MEASURES`
    test: float  # AUC or R2 on the test split

    @property
    def words(self) -> str:
        """`AUC 0.965`."""
        return f"{MEASURES[self.kind]} {self.test:.3f}"


@dataclass(frozen=True)
class Look:
    """How a backbone looks at an image."""

    backbone: str  # its name in conf/backbone
    stages: tuple[int, ...]  # empty: pooled features
    grid: int  # cells a side
    image_size: tuple[int, int]  # (H, W) px

    @torch.no_grad()
    def __call__(self, network: nn.Module, image: Tensor) -> Tensor:
        """image [B,3,R,R] or of `image_size` in [-1,1] -> h [B,F]."""
        if tuple(image.shape[-2:]) != self.image_size:
            image = pool_and_crop(image, self.image_size)
        if not self.stages:
            pooled: Any = getattr(network, "features", network)
            return pooled(image).flatten(1)
        maps: Any = network.stages(image)  # type: ignore[operator]
        cells = [F.adaptive_avg_pool2d(maps[i], self.grid).flatten(1) for i in self.stages]
        return torch.cat(cells, 1)


class Probe(nn.Module):
    """Heads with their backbone.

    Args:
        look: how the backbone looks.
        heads: one an attribute.
        weight: [A,F].
        bias: [A].
        network: the backbone, frozen.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, look: Look, heads: Sequence[Head], weight: Tensor, bias: Tensor, network: nn.Module
    ) -> None:
        super().__init__()
        self.look, self.heads = look, list(heads)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.network = network.eval().requires_grad_(False)

    @property
    def names(self) -> list[str]:
        """Of the attributes, in the order of the columns."""
        return [head.name for head in self.heads]

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """image [B,3,R,R] in [-1,1] -> scores [B,A]."""
        return F.linear(self.look(self.network, image.clamp(-1, 1)), self.weight, self.bias)

    def place(self, attribute: str) -> int:
        """The column of an attribute.

        Raises:
            ConfigError: it is not there.
        """
        if attribute not in self.names:
            listed = ", ".join(self.names[:LISTED])
            raise ConfigError(
                explain(f"no probe of {attribute}", f"one of {listed}",
                        f"fit it: ganinv fit probe --attributes {attribute}")
            )  # fmt: skip
        return self.names.index(attribute)


def check_claim(attribute: str, test: float) -> None:
    """Refuse to rest a claim on a probe that often errs.

    Args:
        attribute: its name.
        test: AUC or R2 of its probe on the test split.

    Raises:
        ConfigError: below `ENOUGH`.
    """
    if not test >= ENOUGH:
        raise ConfigError(
            explain(f"a claim on {attribute}, whose probe has {test:.3f} on the test split",
                    f"AUC or R2 of at least {ENOUGH}", "fit a better probe, or leave it out")
        )  # fmt: skip


def write_probe(
    path: Path, look: Look, heads: Sequence[Head], weight: Tensor, bias: Tensor, **about: Any
) -> None:
    """Write heads, atomically; not the backbone."""
    metadata = {
        "format": FORMAT,
        "attributes": [
            {"name": h.name, "kind": h.kind, "measure": MEASURES[h.kind], "test": h.test}
            for h in heads
        ],
        "backbone": look.backbone,
        "stages": list(look.stages),
        "grid": look.grid,
        "image_size": list(look.image_size),
        **about,
    }
    write_safetensors(path, {"weight": weight.float(), "bias": bias.float()}, metadata)


def read_heads(path: Path) -> tuple[Look, list[Head], Tensor, Tensor]:
    """What a probe's file holds: how to look, the heads, weight [A,F], bias [A].

    Raises:
        WeightsMissing, WeightsError: no such file, another one, or a damaged one.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise _refused(path, f"the format {shown(metadata.get('format'))}")
    weight, bias = tensors.get("weight"), tensors.get("bias")
    entries: Any = metadata.get("attributes")
    stages: Any = metadata.get("stages")
    size: Any = metadata.get("image_size")
    grid: Any = metadata.get("grid")
    backbone = metadata.get("backbone")
    if type(backbone) is not str or not _whole(stages, MAX_STAGES) or not _whole([grid], MAX_GRID):
        raise _refused(path, "no description of its backbone")
    if not _whole(size, MAX_SIDE) or len(size) != 2 or not grid or not all(size):
        raise _refused(path, "no size of its images")
    heads = [_head(path, entry) for entry in entries] if type(entries) is list else []
    if (
        weight is None or bias is None or weight.ndim != 2 or not heads
        or bias.shape != (len(heads),) or len(weight) != len(heads)
        or not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all())
    ):  # fmt: skip
        raise _refused(path, "weights that fit no attributes")
    look = Look(backbone, tuple(stages), int(grid), (size[0], size[1]))
    return look, heads, weight.float(), bias.float()


def _whole(values: Any, most: int) -> bool:
    return (
        type(values) is list
        and len(values) <= most
        and all(type(v) is int and 0 <= v <= most for v in values)
    )


def _head(path: Path, entry: Any) -> Head:
    entry = entry if isinstance(entry, dict) else {}
    name, kind, test = (entry.get(key) for key in ("name", "kind", "test"))
    if (
        type(name) is not str or type(kind) is not str or kind not in MEASURES
        or type(test) is not float or not math.isfinite(test)
    ):  # fmt: skip
        raise _refused(path, f"an attribute {named(name)} without kind and accuracy")
    return Head(name, kind, test)


def _refused(path: Path, fault: str) -> WeightsError:
    return WeightsError(
        explain(f"{path} with {fault}", "a file of `ganinv fit probe`", "fit one, or pass another")
    )


def open_probe(path: Path, network: nn.Module, backbone: str | None = None) -> Probe:
    """The probe of a file on its backbone.

    Args:
        path: the file.
        network: the backbone.
        backbone: its name, where it is not known to be the file's.

    Raises:
        WeightsMissing, WeightsError: as `read_heads`; another backbone, or one of other features.
    """
    look, heads, weight, bias = read_heads(path)
    if backbone is not None and backbone != look.backbone:
        raise _refused(path, f"heads on {named(look.backbone)}, not on {backbone}")
    probe = Probe(look, heads, weight, bias, network.cpu())
    try:
        probe(torch.zeros(1, 3, *look.image_size))
    except (RuntimeError, AttributeError, IndexError, TypeError) as error:
        fault = f"heads that do not fit the features of {named(look.backbone)}"
        raise _refused(path, fault) from error
    return probe
