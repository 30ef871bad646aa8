"""Between two inversions, or two z.

    lerp    x_t = (1 - t) x_0 + t x_1           of wp, f, noise maps and changes of weights
    slerp   z_t = |z_t| (sin((1-t) a) u_0 + sin(t a) u_1) / sin a,   u_i = z_i / |z_i|,
            cos a = u_0 . u_1,   |z_t| = (1 - t) |z_0| + t |z_1|

Source: Shoemake, "Animating rotation with quaternion curves", 1985, for slerp; White, arXiv
1609.04468, for its use on z, whose samples all lie near a sphere.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion

NEARLY_STRAIGHT = 1e-4  # sin a below which slerp is lerp


def interpolate(first: Inversion, second: Inversion, t: float) -> Inversion:
    """The inversion between two of as many images; 0 gives the first, 1 the second. A weight that
    only one of them changes counts as unchanged in the other.

    Raises:
        ConfigError: codes of different shapes; f or noise maps that only one of them has.
    """
    if first.wp.shape != second.wp.shape:
        raise _unlike(f"codes of {list(first.wp.shape)} and of {list(second.wp.shape)}")
    if (first.f is None) != (second.f is None):
        raise _unlike("one inversion with f and one without")
    if set(first.noise or {}) != set(second.noise or {}):
        raise _unlike("inversions of different noise maps")
    f = None if first.f is None or second.f is None else first.f.lerp(second.f, t)
    noise = _between(first.noise, second.noise, t)
    return Inversion(
        first.wp.lerp(second.wp, t), f, noise, _between(first.weights, second.weights, t)
    )


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


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """z [B,D], z [B,D] -> [B,D] on the arc between them; between opposite points, where there are
    many arcs, and along the same direction, a line."""
    lengths = [z.norm(dim=1, keepdim=True) for z in (first, second)]
    u0, u1 = first / lengths[0], second / lengths[1]
    angle = (u0 * u1).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * u0 + (t * angle).sin() * u1) / sine
    straight = first.lerp(second, t)
    return torch.where(sine > NEARLY_STRAIGHT, arc * lengths[0].lerp(lengths[1], t), straight)
