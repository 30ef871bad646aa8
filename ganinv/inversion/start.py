"""Where optimisation starts: the average face, at random, or wherever another method arrived.

w_avg   wp_i = w_avg for all i          random  wp_ij ~ U[-1,1]: Image2StyleGAN for no faces
method  any other method's result: an encoder's code, ReStyle's passes, a projection ...
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Inversion, Target
from ganinv.core.latent import repeat_w
from ganinv.core.seed import generator_of
from ganinv.inversion.model import Model

Invert = Callable[[Target], Inversion]
Start = str | Invert  # "w_avg", "random" or a method


def check_start(start: object, model: Model, key: str) -> None:
    """Refuse what is no start, or one on another generator.

    Args:
        start: "w_avg", "random" or a method.
        model: the model that goes on from there.
        key: what the start is called in the config.

    Raises:
        ConfigError: a name of nothing; a method that inverts into another generator.
    """
    if not callable(start):
        if start not in ("w_avg", "random"):
            raise ConfigError(
                explain(f"{key}={start}", "w_avg, random, encode or the name of another method "
                        "among inversion=[...]", f"set {key}, or name that method there too")
            )  # fmt: skip
        return
    other = getattr(start, "model", model)
    if other.G is not model.G and (None in _hashes(other, model) or _differ(other, model)):
        first, second = (getattr(m.G, "source", None) or "a generator" for m in (other, model))
        raise ConfigError(
            explain(f"{key} inverts into {first}, what follows into {second}",
                    "one generator for both", "take a start of the same model")
        )  # fmt: skip


def _hashes(*models: Model) -> list[str | None]:
    return [getattr(model.G, "sha256", None) for model in models]


def _differ(*models: Model) -> bool:
    return len(set(_hashes(*models))) > 1


def starting_point(start: Start, target: Target, model: Model) -> Inversion:
    """The inversions [B] that the start gives; image i's depends on seed i alone."""
    if callable(start):
        with torch.no_grad():
            return start(target)
    shape = (model.num_ws, model.w_dim)
    w_avg = model.G.w_avg
    if start == "w_avg":
        return Inversion(wp=repeat_w(w_avg.expand(len(target.key), -1), model.num_ws).clone())
    rows = [torch.rand(shape, generator=generator_of(seed, "start")) for seed in target.seeds]
    return Inversion(wp=(torch.stack(rows) * 2 - 1).to(w_avg))


def check_pivot(start: object, model: Model) -> None:
    """As `check_start`, for methods that change the weights around a code.

    Raises:
        ConfigError: also where the start changes weights of its own.
    """
    check_start(start, model, "pivot")
    if getattr(start, "changes_weights", False):
        raise _of_its_own()


def pivot_of(start: Start, target: Target, model: Model) -> Inversion:
    """As `starting_point`, for methods that change the weights around a code.

    Raises:
        ConfigError: the start, one that has not said so, changes weights of its own.
    """
    begun = starting_point(start, target, model)
    if begun.weights is not None:
        raise _of_its_own()
    return begun


def _of_its_own() -> ConfigError:
    return ConfigError(
        explain("a pivot that changes weights of its own", "a method that finds a code",
                "set pivot=encode, or another row that optimises codes")
    )  # fmt: skip
