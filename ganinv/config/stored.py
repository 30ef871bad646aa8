"""The config of a file (a checkpoint, a bundle): read as plain data, built from a list of names.

Whoever made the file chose every word of its config, so nothing in it is trusted: it is never given
to Hydra or OmegaConf, a `_target_` is looked up among ganinv's own constructors (`allowed.py`) and
never imported, every argument has the type and range of its constructor's annotation (`values.py`),
no interpolation is resolved, nothing is fetched from an address that it names, and nothing is
written to a path that it names.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ganinv.config.allowed import ALLOWED, FACTORIES, NESTED, Constructor
from ganinv.config.start import START
from ganinv.config.values import fault_of, parameters_of, text_fault
from ganinv.core.errors import USER_ERRORS, ConfigError, WeightsError, explain
from ganinv.core.network import misfits
from ganinv.dataset.module import AvatarData, ShardData
from ganinv.dataset.place import is_remote

MOST_VALUES, DEEPEST = 10_000, 12
HYDRA = {"_partial_": bool, "_convert_": str}  # of Hydra; this module decides both itself
STARTED = {"encoder": START, "method": {"init_std_scale": float | None}}  # group -> key -> kind
ADVICE = (
    "take files from where you trust; a class of your own is listed in ganinv/config/allowed.py"
)


class StoredConfig(dict[str, Any]):
    """Plain data by group, as a file had it. That it came from a file is its type: the builders
    take the parts of such a config from `allowed.py` alone.

    Args:
        content: what the file holds.
        source: the file, for messages.

    Raises:
        WeightsError: no mapping; values that are no plain data; text with an interpolation; more of
            it than a config has.
    """

    def __init__(self, content: object, source: str | os.PathLike[str]) -> None:
        self.source = str(source)
        if not isinstance(content, Mapping):
            raise _bad_config(self.source, "no mapping", "the config of a training run")
        super().__init__(_plain(content, self.source, "", [0]))


def _plain(value: object, source: str, path: str, seen: list[int], depth: int = 0) -> Any:
    seen[0] += 1
    if depth > DEEPEST or seen[0] > MOST_VALUES:
        raise _bad_config(
            source, "more than a config has", f"{MOST_VALUES:,} values, {DEEPEST} deep"
        )
    if isinstance(value, Mapping):
        found = {}
        for key, item in value.items():
            if type(key) is not str or text_fault(key):
                raise _bad_config(
                    source, f"{path or 'its config'} with a key of another kind", "text"
                )
            name = f"{path}.{key}" if path else key
            found[key] = _plain(item, source, name, seen, depth + 1)
        return found
    if isinstance(value, list | tuple):
        return [_plain(item, source, path, seen, depth + 1) for item in value]
    if type(value) is str:
        if fault := text_fault(value):
            raise _bad_config(source, f"{path}={shown(value)}", fault)
        return str(value)
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int:
        if abs(value) >= 2**63:
            raise _bad_config(source, f"{path} of many digits", "a number")
        return value
    raise _bad_config(source, f"{path} of type {type(value).__name__}"[:200], "plain data")


def build_stored(
    group: str, node: object, source: str | os.PathLike[str] = "the file", /, **parts: Any
) -> Any:
    """What a part of a file's config describes.

    Args:
        group: encoder, task, ... : the group of conf/ that the part belongs to.
        node: its mapping, with `_target_`.
        source: the file, for messages.
        parts: arguments that only exist at run time; `_partial_=True` gives a factory.

    Raises:
        WeightsError: a name that is not in the list, or an argument that its constructor does not
            take.
    """
    bare = bool(parts.pop("_partial_", False))
    constructor, arguments = _checked(group, _plain(node, str(source), group, [0]), str(source))
    arguments |= parts
    if bare or constructor in FACTORIES:
        return partial(constructor, **arguments)
    try:
        if group == "dataset":
            arguments = _without_writing(constructor, arguments, str(source))
        return constructor(**arguments)
    except (ArithmeticError, TypeError) as error:
        name = constructor.__qualname__
        raise _bad_config(
            str(source), f"{group} with settings that make no {name} ({error})", "others"
        ) from error


def _checked(
    group: str, node: Any, source: str, path: str = ""
) -> tuple[Constructor, dict[str, Any]]:
    """The constructor and its arguments, parts within them built."""
    path = path or group
    target = node.get("_target_") if isinstance(node, dict) else None
    constructor = ALLOWED[group].get(target) if isinstance(target, str) else None
    if constructor is None:  # refused
        names = ", ".join(name.rpartition(".")[2] for name in ALLOWED[group])
        raise _bad_config(source, f"{path}._target_={shown(target)}", f"ganinv's own: {names}")
    known, arguments = parameters_of(constructor), {}
    for key, value in node.items():
        if key == "_target_" or (key in HYDRA and type(value) is HYDRA[key]):
            continue
        if key in STARTED.get(group, {}) and fault_of(key, value, STARTED[group][key]) is None:
            continue  # what the training started from: the checkpoint has its own
        if key not in known:
            raise _bad_config(source, f"{path}.{key}", f"an argument of {constructor.__qualname__}")
        fault = fault_of(key, value, known[key].annotation)
        if fault is not None:
            raise _bad_config(source, f"{path}.{key}={shown(value)}", fault)
        is_part = isinstance(value, dict) and "_target_" in value
        arguments[key] = _nested(group, value, source, f"{path}.{key}") if is_part else value
    return constructor, arguments


def _nested(group: str, node: dict[str, Any], source: str, path: str) -> Any:
    """A part within a part, of the groups that this one may hold."""
    target = node["_target_"] if isinstance(node["_target_"], str) else None
    groups = [inner for inner in NESTED.get(group, ()) if target in ALLOWED[inner]]
    if not groups:
        names = [n.rpartition(".")[2] for inner in NESTED.get(group, ()) for n in ALLOWED[inner]]
        raise _bad_config(
            source,
            f"{path}._target_={shown(node['_target_'])}",
            f"ganinv's own: {', '.join(names)}" if names else f"no part within a {group}",
        )
    constructor, arguments = _checked(groups[0], node, source, path)
    if constructor in FACTORIES:
        return partial(constructor, **arguments)
    return constructor(**arguments)


def _without_writing(
    constructor: Constructor, arguments: dict[str, Any], source: str
) -> dict[str, Any]:
    """A dataset that is read where the file says and written where this machine says.

    Raises:
        ConfigError: images at an address, which would be this machine's to ask for.
    """
    if constructor is ShardData and is_remote(arguments.get("root", "")):
        size = ",".join(map(str, arguments.get("image_size", ())))
        raise ConfigError(
            explain(
                f"{source} names images at {shown(arguments.get('root'))}",
                "a dataset that you name: no address in a file is asked for anything",
                f"add dataset=shards dataset.root=ADDRESS 'dataset.image_size=[{size}]'",
            )
        )
    if isinstance(constructor, type) and issubclass(constructor, AvatarData):
        there = constructor(**arguments)
        drawn = all((there.root / split / "index.json").is_file() for split in there.counts)
        if not drawn:
            arguments["cache"] = os.environ.get("GANINV_CACHE", "~/.cache/ganinv")
    return arguments


def check_networks(
    cfg: StoredConfig, generator: nn.Module | None, state: Mapping[str, Tensor]
) -> None:
    """Compare the networks that a checkpoint describes with the tensors that it holds, before any
    memory is taken for them: a file cannot ask for a larger network than it fills.

    Args:
        cfg: the checkpoint's config.
        generator: G, where it is not one of the networks in the checkpoint.
        state: the checkpoint's `state_dict`: E.<key>, D.<key>, G.<key>.

    Raises:
        WeightsError: naming what does not fit.
    """
    letters = {"encoder": "E", "discriminator": "D"} | ({} if generator else {"generator": "G"})
    sizes = {} if generator is None else {"num_ws": generator.num_ws, "w_dim": generator.w_dim}
    for group, letter in letters.items():
        if group not in cfg:
            continue
        network = build_stored(group, cfg[group], cfg.source, _partial_=True)
        wanted = inspect.signature(network.func).parameters
        try:
            with torch.device("meta"):
                own = network(**{k: v for k, v in sizes.items() if k in wanted}).state_dict()
        except (*USER_ERRORS, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise _bad_config(
                cfg.source, f"{group} with settings that make no network ({error})", "others"
            ) from error
        prefix = f"{letter}."
        held = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if wrong := misfits(own, held):
            raise _bad_config(
                cfg.source, f"{letter} with {', '.join(wrong[:3])}", f"{len(own)} tensors"
            )


def stored_generator(cfg: StoredConfig) -> bool:
    """Whether the config's generator is another file's, read by a function of the list, and not a
    class of it, whose weights the checkpoint holds itself."""
    constructor, _ = _checked("generator", cfg.get("generator"), cfg.source)
    return not inspect.isclass(constructor)


def shown(value: object) -> str:
    """A value from a file in a message: its first characters, on one line."""
    if isinstance(value, str):
        cut = value[:80] + ("..." if len(value) > 80 else "")
        return "".join(c if c.isprintable() else "?" for c in cut)
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)[:80]
    return f"a {type(value).__name__}"


def _bad_config(source: str, given: str, expected: str) -> WeightsError:
    return WeightsError(explain(f"{source}, whose config has {given}", expected, ADVICE))
