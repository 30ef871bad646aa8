"""Reads the golden vectors of tests/golden: outputs of the public reference implementations.

Every parameter and input is filled by a rule that needs only its name (tests/golden/README.md), so
a case is a few kilobytes and pins a network of any size.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


_kept: dict[str, Tensor] | None = None


@contextmanager
def kept_between_cases() -> Iterator[None]:
    """Within, a tensor of the same rule is drawn once for all cases: large networks of several
    cases share most of theirs."""
    global _kept
    _kept = {}
    yield
    _kept = None


def _filled(key: str, entry: dict[str, Any]) -> Tensor:
    rule = f"{key} {entry['shape']} {entry['mean']} {entry['std']}"
    if _kept is not None and rule in _kept:
        return _kept[rule]
    value = np.asarray(entry["mean"] + entry["std"] * _normal(key, entry["shape"]))
    tensor = torch.from_numpy(value.astype(np.float32))
    if _kept is not None:
        _kept[rule] = tensor
    return tensor


def _normal(name: str, shape: list[int]) -> np.ndarray:
    seed = zlib.crc32(name.encode()) & 0xFFFFFFFF
    return np.random.RandomState(seed).standard_normal(tuple(shape))


@dataclass
class Case:
    """One golden case: the reference's constructor, its state entries, inputs and outputs."""

    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def ctor(self) -> dict[str, Any]:
        """The reference constructor's arguments."""
        return self.spec["ctor"]

    def state(self, network: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The reference's state dict, filled by the rule; constants come from the case itself or
        from `network`, the architecture's own state under the reference's keys."""
        state = {}
        for key, entry in self.spec["state"].items():
            if "mean" in entry:
                state[key] = _filled(key, entry)
            elif key in self.arrays:
                state[key] = torch.from_numpy(self.arrays[key])
            elif "value" in entry:
                value = np.asarray(entry["value"]).reshape(entry["shape"])
                state[key] = torch.from_numpy(value).to(getattr(torch, entry["dtype"]))
            elif network is not None and key in network:
                state[key] = network[key]
        return state

    def input(self, name: str) -> Tensor:
        """An input tensor, filled by the rule."""
        shape, scale = self.spec["inputs"][name]
        return torch.from_numpy(np.float32(_normal("input:" + name, shape) * scale))

    def error(self, name: str, output: Tensor) -> float:
        """||output - reference|| / ||reference|| over the stored part of the named output."""
        entry = self.spec["outputs"][name]
        assert list(output.shape) == entry["shape"], (list(output.shape), entry["shape"])
        mine = output.detach().float().numpy()
        if (stride := entry["spatial_stride"]) > 1:
            mine = mine[..., ::stride, ::stride]
        reference = self.arrays[name]
        return float(np.linalg.norm(mine - reference) / np.linalg.norm(reference))


def case(name: str) -> Case:
    """Load a case by name, e.g. `case("psp_encoder_256")`."""
    spec = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as file:
        return Case(spec, dict(file.items()))
