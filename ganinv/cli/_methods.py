"""`ganinv invert --method NAME`: from the command line to the config of per-image methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, explain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ganinv.inversion.model import Model
    from ganinv.task.task import Task

STARTS = {"pti": "pivot", "clone": "pivot"}  # others call it start
GROUPS = ("loss",)  # that may be set beside the method's own keys
ENCODE = "encode"


def config_of(method: str, start: str | None, settings: list[str]) -> DictConfig:
    """What evaluate.py would compose for `inversion=[start,method]`, checked; its `inversion` holds
    the nodes.

    Args:
        method: a name of conf/inversion.
        start: of the method that it starts from, None for what its yaml says.
        settings: KEY=VALUE, of the method's own keys, or in full as on evaluate.py's command line.

    Raises:
        ConfigError: what conf/ does not have, or a value that cannot be.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import ConfigCompositionException, OverrideParseException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    from ganinv.config.check import check_config
    from ganinv.config.command import refusal, unknown_choice
    from ganinv.config.folder import CONF, choices

    known = choices("inversion")
    for option, name in (("method", method), ("start", start)):
        if name is not None and name not in known and name not in ("w_avg", "random"):
            told = str(unknown_choice("inversion", name, known))
            raise ConfigError(told.replace("inversion=", f"--{option} "))
    names = [*([start] if start in known and start != method else []), method]
    words = [f"inversion=[{','.join(names)}]"]
    if start is not None:
        words.append(f"inversion.{method}.{STARTS.get(method, 'start')}={start}")
    words += [_in_full(method, word) for word in settings]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("evaluate", overrides=[*words, "checkpoint=given"])
    except (ConfigCompositionException, OverrideParseException, OmegaConfBaseException) as error:
        raise refusal(error) from error
    with open_dict(cfg):
        for group in [name for name in cfg if name not in ("inversion", *GROUPS)]:
            del cfg[group]
    check_config(cfg)
    OmegaConf.resolve(cfg)
    return cfg


def _in_full(method: str, word: str) -> str:
    """KEY=VALUE of the method, or what is in full already."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ConfigError(explain(f"--set {word}", "KEY=VALUE", "e.g. --set steps=200"))
    if "." in key or key in GROUPS:
        return word
    return f"inversion.{method}.{key}={value}"


def plain_methods(cfg: DictConfig) -> dict[str, Any]:
    """The methods' nodes as plain values."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(cfg.inversion, resolve=True)
    return dict(found)


def check_methods(method: str, model: Model, task: Task, size: int | None) -> None:
    """Refuse what no per-image method can work on.

    Args:
        method: its name.
        model: E and G.
        task: what E reads of a user's files.
        size: px a side at which images are compared, None for E's own size.

    Raises:
        ConfigError: an encoder of other things than images; a size that G's image is not brought
            to.
    """
    from ganinv.task.image import Image

    if not isinstance(task, Image):
        name = type(task).__name__
        raise ConfigError(
            explain(f"--method {method} with an encoder of the task {name}, whose inputs are not "
                    "the images that it makes", "an encoder of images, or --method encode",
                    "leave --method out")
        )  # fmt: skip
    side = model.G.resolution
    if size is not None and (size < 1 or side % size):
        raise ConfigError(
            explain(f"--size {size} with a generator of {side} px",
                    f"{side} px or a whole part of it", f"e.g. --size {side}")
        )  # fmt: skip
