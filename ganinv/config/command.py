"""The command line of a training and an evaluation: what Hydra cannot compose ends in one sentence.

Hydra's own words on a command are a parser's ("mismatched input '('"); these say what to type.
"""

from __future__ import annotations

import difflib
import importlib.resources
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ganinv.config.folder import CONF, choices
from ganinv.core.errors import ConfigError, explain

FULL = "HYDRA_FULL_ERROR"
DERIVED = ("encoder", "loss", "discriminator", "preset")  # groups whose choice follows others


def run_command(task: Callable[[DictConfig], None], entry: str, words: Sequence[str]) -> None:
    """Compose a config and hand it to a task, as a Hydra application does. Errors of composition
    are told in a sentence; with HYDRA_FULL_ERROR=1, as they are. preset=null, which Hydra does not
    take, is preset=none.

    Hydra reads `sys.argv`, which is the process's own again when the task begins: it is what ranks
    are started with, and what the run's folder keeps.

    Args:
        task: what a config is for.
        entry: train or evaluate: the config's name.
        words: of the command line.
    """
    typed = sys.argv

    @wraps(task)
    def with_own_words(cfg: DictConfig) -> None:
        if sys.argv[:1] == typed[:1]:  # not in a job that another program started
            sys.argv = typed
        task(cfg)

    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=entry)(with_own_words)
    words = ["preset=none" if word == "preset=null" else word for word in words]
    sys.argv = [typed[0], *options_first(words)]
    try:
        _told(main)
    finally:
        sys.argv = typed


def options_first(words: Sequence[str]) -> list[str]:
    """The same words, --config-dir and the like before the overrides. Hydra takes options at either
    end, but not between overrides; Lightning adds overrides to the words of the ranks it starts."""
    actions = {o: a for a in get_args_parser()._actions for o in a.option_strings}
    options: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if (action := actions.get(word)) is None:
            (options if word.partition("=")[0] in actions else overrides).append(word)
            continue
        options.append(word)
        known = action.choices or ()  # of --info, whose value may be left out
        if rest and (action.nargs is None or (action.nargs == "?" and rest[0] in known)):
            options.append(rest.pop(0))
    return [*options, *overrides]


def _told(main: Callable[[], None]) -> None:
    if os.environ.get(FULL) == "1":
        main()
        return
    os.environ[FULL] = "1"  # so that Hydra hands them on instead of printing them
    try:
        check_loggers(sys.argv[1:])
        check_typed(sys.argv[1:])
        main()
    except ConfigError as error:
        sys.exit(f"\nConfigError: {error}")
    except (ConfigCompositionException, OverrideParseException, OmegaConfBaseException) as error:
        sys.exit(f"\nConfigError: {refusal(error)}")
    except YAMLError as error:
        words = " ".join(str(error).split())
        sentence = explain(
            f"a file of the config that is no YAML: {words}", "YAML", "correct it there"
        )
        sys.exit(f"\nConfigError: {sentence}")
    except ValueError as error:
        if "Config group override must be a string or a list" not in str(error):
            raise
        word = next((w for w in sys.argv[1:] if w.endswith("=null") and "." not in w), "a group")
        sys.exit(f"\nConfigError: {left_out(word)}")


def left_out(word: str) -> ConfigError:
    """The refusal of GROUP=null."""
    group = word.partition("=")[0]
    return ConfigError(
        explain(f"{word}", f"a choice of conf/{group}", f"name one, or leave {group} out")
    )


def refusal(error: Exception) -> ConfigError:
    """The sentence for an error of Hydra's."""
    if isinstance(error, OverrideParseException):
        return ConfigError(unreadable(error.override))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return unknown_choice(group, choice, error.options or choices(group))
    if str(error).startswith("Ambiguous value for argument "):
        return ConfigError(unreadable(str(error).split("'")[1]))
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return _unknown_key(cause)
    return ConfigError(" ".join(str(error).split()))


def unreadable(override: str) -> str:
    """The sentence for an argument that Hydra's grammar does not take, with the form that it does:
    the value in quotes, and quotes around the whole for the shell."""
    key, equals, value = override.partition("=")
    if not equals:
        return explain(repr(override), "arguments of the form KEY=VALUE", "see --help")
    return explain(
        f"{override}, which has a character with a meaning of its own (a space, a quote, = , : or "
        "a bracket)",
        "such a value in quotes",
        f"write {quoted(key, value)}",
    )


def quoted(key: str, value: str) -> str:
    """KEY=VALUE as it can be typed in a shell, for any text as value."""
    inner = re.sub(r"(\\*)'", r"\1\1\\'", value)
    inner = re.sub(r"(\\+)$", r"\1\1", inner)
    if set(inner) & set("'\"\\$`!"):
        return shlex.quote(f"{key}='{inner}'")
    return f"\"{key}='{inner}'\""


def unknown_choice(group: str, choice: str, options: Iterable[str]) -> ConfigError:
    """The refusal of a name that is no file of its group."""
    options = sorted(options)
    near = difflib.get_close_matches(choice, options, n=3, cutoff=0.5)
    todo = f"{group}={near[0]}?" if near else "choose one of these"
    expected = f"one of {', '.join(near or options)}" + (" (the nearest)" if near else "")
    return ConfigError(explain(f"{group}={choice}, which is not in conf/{group}", expected, todo))


def _unknown_key(error: Any) -> ConfigError:
    known = [str(key) for key in error.parent_node or ()]
    parent, _, key = str(error.full_key).rpartition(".")
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    names = [f"{parent}.{name}" if parent else name for name in near or known]
    return ConfigError(
        explain(f"{error.full_key}, which is no key of the config" if known else str(error),
                f"one of {', '.join(names)}" + (" (the nearest)" if near else ""),
                f"{names[0]}=...?" if near else "see --help; a key of your own is added with +KEY")
    )  # fmt: skip


def check_choices() -> None:
    """Refuse names in the groups whose choice follows the method's: Hydra leaves out what is not
    there, since a method may have no encoder, loss or discriminator.

    Raises:
        ConfigError: with the nearest names.
    """
    if not HydraConfig.initialized():
        return
    hydra = HydraConfig.get()
    choices = hydra.runtime.choices
    words: Any = OmegaConf.to_container(hydra.overrides.task)  # not resolved
    typed = {str(word).lstrip("+~").split("=")[0] for word in words}
    method = choices.get("method")
    for group in DERIVED:
        choice = choices.get(group)
        follows = choices.get("generator") if group == "preset" else method
        if choice is None or (choice == follows and group not in typed):
            continue
        if choice not in (found := options_of(group)):
            raise unknown_choice(group, choice, found)


def check_loggers(words: Sequence[str]) -> None:
    """Refuse a list of loggers: Hydra would lay one file over the other, and the last one wins.

    Raises:
        ConfigError: naming the file that has both.
    """
    for word in words:
        group, _, choice = word.lstrip("+").partition("=")
        if group == "logger" and choice.startswith("["):
            expected = f"one of {', '.join(sorted(choices(group)))}"
            raise ConfigError(explain(word, expected, "logger=wandb_tensorboard has both"))


def check_typed(words: Sequence[str]) -> None:
    """As `check_choices`, for --cfg: Hydra then prints what it has composed and runs nothing.

    Args:
        words: of the command line.

    Raises:
        ConfigError: with the nearest names.
    """
    printed = any(word.partition("=")[0] in ("--cfg", "-c") for word in words)
    if not printed or any("searchpath" in word for word in words):
        return
    folders: list[Path] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            folders.append(Path(value if equals else following))
    for word in words:
        group, equals, choice = word.lstrip("+").partition("=")
        if group in DERIVED and re.fullmatch(r"\w[\w.-]*", choice) and choice != "null":
            if choice not in (found := choices(group, *folders)):
                raise unknown_choice(group, choice, found)


def options_of(group: str) -> list[str]:
    """The choices of a group, those of --config-dir and of the search path too."""
    found: set[str] = set()
    for source in HydraConfig.get().runtime.config_sources:
        if source.schema == "file":
            folder: Any = Path(source.path) / group
        elif source.schema == "pkg":
            folder = importlib.resources.files(source.path) / group
        else:
            continue
        if folder.is_dir():
            found |= {f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")}
    return sorted(found)
