"""From a config to the parts it names: data, task, networks, losses, method.

A config is either what the user composed (Hydra builds it; a yaml of the user's own may name any
class) or what a file holds (`StoredConfig`: ganinv's own constructors alone, `stored.py`).
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ganinv import __version__
from ganinv.config.instantiate import instantiate
from ganinv.config.start import START
from ganinv.config.start_encoder import start_encoder
from ganinv.config.stored import StoredConfig, build_stored
from ganinv.config.values import as_annotated, parameters_of
from ganinv.core.errors import ConfigError, WeightsError, explain
from ganinv.loss.term import Terms
from ganinv.method.base import Method
from ganinv.task.image import Image
from ganinv.task.task import Task

Config = DictConfig | StoredConfig


def build_part(cfg: Config, group: str, **parts: Any) -> Any:
    """The part of a group, `parts` added to its arguments; `_partial_=True` gives a factory.

    Raises:
        WeightsError: a file's config names something else than ganinv's own.
    """
    if isinstance(cfg, StoredConfig):
        return build_stored(group, cfg.get(group), cfg.source, **parts)
    return instantiate(cfg[group], **parts)


def build_method(
    cfg: Config, generator: torch.nn.Module, *, training: bool = True, resumed: bool = False
) -> Method:
    """The method of the config around a generator, with the parts that the config names: `encoder`,
    `loss` and `discriminator` are absent from the config of a method that has none.

    Args:
        cfg: the composed config.
        generator: what `cfg.generator` describes.
        training: False leaves out the losses, and with them the weights that only they need, and
            what the encoder starts from.
        resumed: whether a checkpoint fills the encoder, so that nothing else needs to.
    """
    parts: dict[str, Any] = {"generator": generator, "optimizer": build_optimizer(cfg)}
    if "encoder" in cfg:
        parts["encoder"] = _build_encoder(cfg, generator, fresh=training and not resumed)
        parts["task"] = build_part(cfg, "task")
    elif type(task := build_part(cfg, "task")) is not Image:
        raise ConfigError(
            explain(f"the task {type(task).__name__} with a method that has no encoder",
                    "task=image", "leave task out")
        )  # fmt: skip
    if "loss" in cfg:
        parts["loss"] = Terms(build_part(cfg, "loss") if training else {})
    if "discriminator" in cfg:
        parts["discriminator"] = build_part(cfg, "discriminator")
    make_method = build_part(cfg, "method", _partial_=True)
    if "loss" in cfg and training:
        parts["loss"].check_trainable(make_method.func.gives, make_method.func.__name__)
    if "task" in parts:
        _check_channels(cfg, parts["task"], make_method.func.extra_input_channels)
    try:
        method: Method = make_method(**parts)
    except TypeError as error:
        if not isinstance(cfg, StoredConfig):
            raise
        raise WeightsError(f"{cfg.source}, whose config makes no method: {error}") from error
    method.provenance = {
        "config": plain(cfg),
        "version": __version__,
        "generator_source": getattr(generator, "source", None),
        "generator_sha256": getattr(generator, "sha256", None),
    }
    return method


def build_optimizer(cfg: Config) -> Any:
    """The factory of the optimizer, its numbers of the types that it is annotated with."""
    make = build_part(cfg, "optimizer")
    if not isinstance(make, partial):
        return make
    known = parameters_of(make.func)
    typed = {
        key: as_annotated(value, known[key].annotation) if key in known else value
        for key, value in make.keywords.items()
    }
    return partial(make.func, *make.args, **typed)


def _build_encoder(cfg: Config, generator: Any, *, fresh: bool) -> nn.Module:
    """E; a fresh one with what it starts from."""
    make = build_part(cfg, "encoder", _partial_=True)
    arguments = dict(make.keywords)
    start = {key: arguments.pop(key) for key in START if key in arguments}
    known = {"num_ws": generator.num_ws, "w_dim": generator.w_dim}
    wanted = inspect.signature(make.func).parameters
    arguments |= {k: v for k, v in known.items() if k in wanted}
    encoder: nn.Module = make.func(**arguments)
    if fresh:
        start_encoder(encoder, generator, **start)
    return encoder


def build_data(cfg: Config, task: Task, **options: Any) -> Any:
    """The data module of a config's dataset, which also reads what a task reads beside images.

    Args:
        cfg: the config whose dataset it is.
        task: what the encoder reads.
        options: what to set otherwise.
    """
    if task.reads is not None:
        options |= {"source": task.reads, "classes": task.channels}
    return build_part(cfg, "dataset", **options)


def plain(cfg: Config) -> dict[str, Any]:
    """The whole config as plain data: of a composed one, with all interpolations resolved."""
    if isinstance(cfg, StoredConfig):
        return dict(cfg)
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _check_channels(cfg: Config, task: Task, more: int) -> None:
    given, wanted = cfg["encoder"]["input_nc"], task.channels + more
    if given != wanted:
        raise ConfigError(
            explain(
                f"encoder.input_nc={given} with the task {type(task).__name__}",
                f"{wanted}, what the encoder is given to read",
                f"set encoder.input_nc={wanted}",
            )
        )
