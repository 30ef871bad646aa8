"""Reading a feature network's weights from the file that `catalogue.py` finds. What was loaded is
named with its sha256.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganinv.backbone.catalogue import CATALOGUE, locate
from ganinv.core.errors import WeightsError, explain
from ganinv.core.network import misfits, state_of
from ganinv.core.safe.io import load_tensors, sha256_file

log = logging.getLogger(__name__)

MAX_NAME = 200  # characters of a tensor's name


def read(name: str, path: str | None = None) -> tuple[Any, str]:
    """What a network's file holds, and its provenance, "file (sha256 ...)", which is also logged.

    Raises:
        WeightsMissing, WeightsError: as `locate`; or the file is no file of tensors.
    """
    file = locate(name, path)
    content = load_tensors(file)
    provenance = f"{file.name} (sha256 {sha256_file(file)[:16]})"
    log.info("%s: weights from %s", name, provenance)
    return content, provenance


def load(name: str, path: str | None = None) -> tuple[dict[str, Tensor], str]:
    """As `read`, of a file that is a plain state dict.

    Raises:
        WeightsMissing, WeightsError: as `read`; or the file holds no plain state dict.
    """
    state, provenance = read(name, path)
    plain = isinstance(state, dict) and all(
        type(k) is str and len(k) <= MAX_NAME and isinstance(v, Tensor) for k, v in state.items()
    )
    if not plain:
        raise WeightsError(
            explain(
                f"{provenance} is not a plain state dict",
                f"{CATALOGUE[name].file} as published by {CATALOGUE[name].source}",
                "give the path of the published file",
            )
        )
    return state, provenance


def fit(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Strict `load_state_dict` that names what does not fit. The tensors are copied.

    Raises:
        WeightsError: keys missing, keys left over, or a shape that differs; `network` is untouched.
    """
    own, state = network.state_dict(), state_of(state, source)
    if problems := misfits(own, state):
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(
            explain(
                f"{source} has {', '.join(problems[:3])}{more}",
                f"the {len(own)} tensors of {type(network).__name__}",
                "give the weights of this architecture, or choose the architecture of the file",
            )
        )
    network.load_state_dict(state)


def widened(filters: Tensor, others: Tensor) -> Tensor:
    """The filters [O,3,k,k] of a file beside those of further input channels, [O,C,k,k]; filters of
    another shape as they are, for `fit` to refuse."""
    fits = filters.ndim == 4 and (len(filters), *filters.shape[2:]) == (
        len(others),
        *others.shape[2:],
    )
    return torch.cat([filters, others], dim=1) if fits else filters
