"""Between two inversions; between two z it is `ganinv/core/latent.py:slerp`.

x_t = (1 - t) x_0 + t x_1           of wp, f, noise maps and changes of weights
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion


def interpolate(first: Inversion, second: Inversion, t: float) -> Inversion:
    """The inversion between two of as many images; 0 gives the first, 1 the second. A weight that
    only one of them changes counts as unchanged in the other. Errors as `check_alike`.
    """
    check_alike(first, second)
    f = None if first.f is None or second.f is None else first.f.lerp(second.f, t)
    noise = _between(first.noise, second.noise, t)
    return Inversion(
        first.wp.lerp(second.wp, t), f, noise, _between(first.weights, second.weights, t)
    )


def check_alike(first: Inversion, second: Inversion) -> None:
    """Refuse two inversions that have no between.

    Raises:
        ConfigError: codes of different shapes; f or noise maps that only one of them has.
    """
    if first.wp.shape != second.wp.shape:
        raise _unlike(f"codes of {list(first.wp.shape)} and of {list(second.wp.shape)}")
    if (first.f is None) != (second.f is None):
        raise _unlike("one inversion with f and one without")
    if set(first.noise or {}) != set(second.noise or {}):
        raise _unlike("inversions of different noise maps")


def _between(
    first: Mapping[str, Tensor] | None, second: Mapping[str, Tensor] | None, t: float
) -> dict[str, Tensor] | None:
    if first is None and second is None:
        return None
    first, second = first or {}, second or {}
    known = {**first, **second}
    zero = {name: torch.zeros_like(value) for name, value in known.items()}
    return {n: first.get(n, zero[n]).lerp(second.get(n, zero[n]), t) for n in known}


def _unlike(given: str) -> ConfigError:
    return ConfigError(
        explain(given, "two inversions of the same method and generator", "invert both alike")
    )
