"""Refusals of what cannot work, before any data is read: each value, then what goes together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganinv.config.command import check_choices
from ganinv.config.source import parameters_of_target
from ganinv.config.start import START
from ganinv.config.values import fault_of
from ganinv.core.errors import ConfigError, WeightsError, explain

KEYS: dict[str, Any] = {  # of train.yaml and evaluate.yaml, outside all groups
    "seed": int,
    "name": str,
    "runs": str,
    "run_dir": str | None,
    "scratch": str | None,
    "resume": str | None,
    "checkpoint": str,
    "generator_weights": str | None,
    "split": Literal["train", "val", "test"],
    "limit": int | None,
    "batch_size": int,
    "output": str | None,
    "pictures": int,
}
FORMS = {  # of texts: key -> pattern, in words
    "name": (r"\w[\w.+@-]{0,99}", "a plain name of letters, digits and . _ - + @"),
}
HYDRA = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
NEEDED = ("method", "generator", "dataset", "task", "optimizer", "trainer", "logger")
PARTS = ("encoder", "loss", "discriminator")  # of a method, each a group of its own
FLAGS = {"params", "initial_lr", "foreach", "fused", "capturable", "differentiable", "maximize"}


def check_config(cfg: DictConfig) -> None:
    """Look at every value of a composed config, before anything is loaded or written.

    Types are those of the constructors' annotations, ranges those of `ranges.py`.

    Raises:
        ConfigError: naming the key, its value and what was expected.
    """
    check_choices()
    for group in NEEDED if "method" in cfg else ():
        if group not in cfg or "_target_" not in cfg[group]:
            raise ConfigError(
                explain(f"{group}=null", f"a choice of conf/{group}",
                        f"name one, or leave {group} out")
            )  # fmt: skip
    try:
        container: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            explain(f"{error.full_key}: {str(error).splitlines()[0]}",
                    "values that name only keys of the config",
                    "write another value; a folder's name must not hold ${")
        ) from None  # fmt: skip
    for key in KEYS.keys() & container.keys():  # first: the groups refer to them
        _check_value(key, key, container[key], KEYS[key])
    if isinstance(container.get("dry"), dict):
        _check_value("dry.batch_size", "batch_size", container["dry"].get("batch_size"), int)
    for path, node in _parts(container, ""):
        _check_part(path, node)
    check_tensorboard(container.get("logger"))
    if "method" in container:
        _check_parts_of_method(container)


def check_tensorboard(logger: Any) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ConfigError: saying how it is.
    """
    asked = isinstance(logger, dict) and logger.get("tensorboard") is True
    if asked and find_spec("tensorboard") is None:
        raise ConfigError(
            explain("logger.tensorboard=true without the package tensorboard", "the package",
                    "pip install tensorboard, or take another logger")
        )  # fmt: skip


def _parts(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from _parts(value, f"{path}.{key}" if path else key)


def _check_part(path: str, node: dict[str, Any]) -> None:
    try:
        known = parameters_of_target(node["_target_"])
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            explain(f"{path}._target_={node['_target_']}", "a class or function of Python",
                    f"correct the name ({str(error).splitlines()[0]})")
        ) from None  # fmt: skip
    for key, value in node.items():
        if key not in HYDRA and key in known:
            _check_value(f"{path}.{key}", key, value, known[key].annotation)
        elif path == "encoder" and key in START:
            _check_value(f"{path}.{key}", key, value, START[key])


def _check_value(path: str, key: str, value: Any, annotation: Any) -> None:
    if value == "???":
        return  # what is missing is told by whoever needs it
    fault = fault_of(key, value, annotation)
    if fault is None and key in FORMS and path == key:
        pattern, words = FORMS[key]
        fault = None if re.fullmatch(pattern, value) else words
    if fault is not None:
        shown = "null" if value is None else str(value).lower() if value in (True, False) else value
        raise ConfigError(explain(f"{path}={str(shown)[:200]}", fault, f"set {path}=..."))


def _check_parts_of_method(config: dict[str, Any]) -> None:
    """A method gets the parts that its constructor asks for, and no others."""
    method = config["method"]
    known = parameters_of_target(method["_target_"])
    name = method["_target_"].rpartition(".")[2]
    for group in PARTS:
        given = group in config and _has(config[group])
        if config.get(group) is not None and group not in known:
            raise ConfigError(
                explain(f"{group}=... with the method {name}, which has none", f"no {group}",
                        f"leave {group} out, or choose another method")
            )  # fmt: skip
        if not given and group in known and known[group].required:
            raise ConfigError(
                explain(f"{group}=null with the method {name}", f"its {group}",
                        f"leave {group} out, which takes the method's own, or name one")
            )  # fmt: skip


def _has(node: Any) -> bool:
    """Whether a group builds something: a part, or named parts (the losses) and nothing else. What
    an overlay adds to a group that was left out is no part."""
    if not isinstance(node, Mapping):
        return False
    return "_target_" in node or all(
        v is None or (isinstance(v, Mapping) and "_target_" in v) for v in node.values()
    )


def check(generator: Any, data: Any, splits: Sequence[str] = ("train", "val")) -> None:
    """Refuse a generator whose images cannot be compared with the data's.

    A dataset whose images are drawn from the generator names no sizes.

    Raises:
        ConfigError: the generator's size is not among the data's `generator_resolutions`; it is
            conditional, or makes no RGB images.
        DataError: the data are missing or incomplete.
    """
    check_images(generator)
    check_resolution(generator, data.generator_resolutions, data.image_size)
    data.check(splits)


def check_images(generator: Any) -> None:
    """Refuse a generator that wants a class of each image, or does not make RGB images.

    Raises:
        ConfigError: naming its `c_dim` or channels.
    """
    own: Mapping[str, Any] = getattr(generator, "architecture", {})
    if own.get("c_dim"):
        raise ConfigError(
            explain(f"a conditional generator (c_dim={own['c_dim']})",
                    "an unconditional one: no dataset here says which class an image has",
                    "choose another generator=...")
        )  # fmt: skip
    if own.get("img_channels", 3) != 3:
        raise ConfigError(
            explain(f"a generator of images with {own['img_channels']} channels",
                    "RGB, 3 channels, as datasets have", "choose another generator=...")
        )  # fmt: skip


def check_resolution(
    generator: Any, resolutions: Sequence[int] | None, image_size: Sequence[int]
) -> None:
    """Refuse a generator of another size than the data are made for.

    Raises:
        ConfigError: naming both.
    """
    if resolutions is not None and generator.resolution not in resolutions:
        sizes = " or ".join(map(str, resolutions))
        raise ConfigError(
            explain(
                f"a generator of {generator.resolution} px with images of "
                f"{image_size[0]} x {image_size[1]} px",
                f"a generator of {sizes} px (dataset.generator_resolutions)",
                "choose another generator=... or dataset=...",
            )
        )


def check_optimizers(method: Any, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to go on with the state of another optimizer: it would be taken over in silence.

    Args:
        method: of this run.
        checkpoint: what it is to go on from.

    Raises:
        WeightsError: naming what the states disagree on.
    """
    states = checkpoint.get("optimizer_states") or []
    own = zip(method.player_names, method.configure_optimizers(), strict=True)
    for (player, optimizer), state in zip(own, states, strict=False):
        ours, theirs = (dict(groups["param_groups"][0]) for groups in (
            optimizer.state_dict(), state))  # fmt: skip
        keys = (set(ours) ^ set(theirs)) - FLAGS - {"amsgrad", "decoupled_weight_decay"}
        keys |= {
            k for k in ("decoupled_weight_decay",) if ours.get(k, False) != theirs.get(k, False)
        }
        if keys:
            name = type(optimizer).__name__
            raise WeightsError(
                explain(f"a checkpoint whose optimizer of {player} is no {name} (it differs in "
                        f"{', '.join(sorted(keys))})", "the optimizer of the first run",
                        "leave optimizer=... out, or start a new run")
            )  # fmt: skip
