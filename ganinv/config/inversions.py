"""From a config's `inversion` group to per-image methods, some of which start from others."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from ganinv.config.instantiate import instantiate
from ganinv.core.errors import ConfigError, explain
from ganinv.inversion.encode import Encode
from ganinv.inversion.model import Model

STARTS = ("start", "pivot")  # keys by which a method names the one before it


def build_inversions(nodes: DictConfig, model: Model) -> dict[str, Any]:
    """The methods by name, each built once.

    A method that starts from another one names it: another entry of the group, or encode, which is
    always there. A node with a `_target_` of its own in that place is built as it is.

    Args:
        nodes: name -> node.
        model: E and G of all of them.

    Raises:
        ConfigError: methods that start from each other; else as the constructors, which refuse a
            name of nothing.
    """
    made: dict[str, Any] = {}

    def make(name: str, after: tuple[str, ...]) -> Any:
        if name in after:
            circle = " from ".join([*after[after.index(name) :], name])
            raise ConfigError(
                explain(f"inversion methods that start {circle}", "one that starts from w_avg, "
                        "random or encode", f"set inversion.{name}.{_start_of(nodes[name])}")
            )  # fmt: skip
        if name not in made:
            others = {}
            for key in STARTS:
                before = nodes[name].get(key)
                if isinstance(before, DictConfig):
                    others[key] = instantiate(before, model=model)
                elif before in nodes:
                    others[key] = make(before, (*after, name))
                elif before == "encode":
                    others[key] = Encode(model=model)
            made[name] = instantiate(nodes[name], model=model, **others)
        return made[name]

    return {str(name): make(str(name), ()) for name in nodes}


def _start_of(node: DictConfig) -> str:
    return next(key for key in STARTS if key in node)
