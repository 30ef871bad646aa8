"""From a composed config to the parts it names: data, task, networks, losses, method."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ganinv import __version__
from ganinv.config.instantiate import instantiate
from ganinv.core.errors import ConfigError, explain
from ganinv.loss.term import Terms
from ganinv.method.base import Method
from ganinv.task.task import Task


def build_method(cfg: DictConfig, generator: torch.nn.Module, *, training: bool = True) -> Method:
    """The method of the config around a generator, with the parts that the config names: `encoder`,
    `loss` and `discriminator` are absent from the config of a method that has none.

    Args:
        cfg: the composed config.
        generator: what `cfg.generator` describes.
        training: False leaves out the losses, and with them the weights that only they need, and
            what the networks would start from.
    """
    parts: dict[str, Any] = {"generator": generator, "optimizer": instantiate(cfg.optimizer)}
    if "encoder" in cfg:
        encoder = instantiate(cfg.encoder, _partial_=True, _convert_="all")
        if not training and "trunk_weights" in encoder.keywords:
            encoder = partial(encoder, trunk_weights=None)
        known = {"num_ws": generator.num_ws, "w_dim": generator.w_dim}
        wanted = inspect.signature(encoder.func).parameters
        parts["encoder"] = encoder(**{k: v for k, v in known.items() if k in wanted})
        parts["task"] = instantiate(cfg.task)
    elif not cfg.task._target_.endswith(".Image"):
        raise ConfigError(
            explain(f"task={cfg.task._target_} with a method that has no encoder", "task=image",
                    "leave task out")
        )  # fmt: skip
    if "loss" in cfg:
        parts["loss"] = Terms(instantiate(cfg.loss, _convert_="all") if training else {})
        if training:
            parts["loss"].check_any_term()
    if "discriminator" in cfg:
        parts["discriminator"] = instantiate(cfg.discriminator, _convert_="all")
    make_method = instantiate(cfg.method, _partial_=True, _convert_="all")
    if "task" in parts:
        _check_channels(cfg, parts["task"].channels + make_method.func.extra_input_channels)
    method: Method = make_method(**parts)
    method.provenance = {
        "config": OmegaConf.to_container(cfg, resolve=True),
        "version": __version__,
        "generator_source": getattr(generator, "source", None),
        "generator_sha256": getattr(generator, "sha256", None),
    }
    return method


def build_data(dataset: DictConfig, task: DictConfig | Task, **options: Any) -> Any:
    """The data module of a config's dataset, which also reads what its task reads beside images.

    Args:
        dataset: the config's dataset.
        task: the config's task, or one that is built already.
        options: what to set otherwise.
    """
    wanted = task if isinstance(task, Task) else instantiate(task)
    if wanted.reads is None:
        return instantiate(dataset, **options)
    return instantiate(dataset, source=wanted.reads, classes=wanted.channels, **options)


def _check_channels(cfg: DictConfig, wanted: int) -> None:
    given = cfg.encoder.input_nc
    if given != wanted:
        raise ConfigError(
            explain(
                f"encoder.input_nc={given} with the task {cfg.task._target_.rsplit('.', 1)[-1]}",
                f"{wanted}, what the encoder is given to read",
                f"set encoder.input_nc={wanted}",
            )
        )
