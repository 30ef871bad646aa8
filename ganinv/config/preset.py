"""What a preset changed in a run's config: told in the log, from what to what.

A preset (conf/preset/) is chosen by the generator's name. Hydra itself reads its files over those
of the choices they are named after (conf/train.yaml), so that what it prints is what is trained.
Here the same choices are composed once more without it, and compared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

log = logging.getLogger(__name__)

NONE = "none"  # the preset that changes nothing
ABSENT = "absent"


def log_preset(cfg: Any) -> None:
    """Say what the preset of this run changed, if anything.

    Args:
        cfg: the config that is trained; what the user set to another value is not the preset's.
    """
    if not (HydraConfig.initialized() and GlobalHydra.instance().is_initialized()):
        return  # composed by hand
    name = HydraConfig.get().runtime.choices.get("preset")
    if changes := preset_changes(cfg):
        log.info("preset=%s (none: as the files say): %s", name, "; ".join(changes))


def preset_changes(cfg: Any) -> list[str]:
    """`key: before -> after` of every value that is the preset's; to be called where Hydra is
    initialised (`@hydra.main` does it)."""
    hydra = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)
    kept = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    kept += [word for word in overrides if _is_choice(word, hydra.runtime.choices)]
    entry = hydra.job.config_name
    with_it: Any = OmegaConf.to_container(compose(entry, kept))
    kept = [word for word in kept if not word.startswith("preset=")]
    without: Any = OmegaConf.to_container(compose(entry, [*kept, f"preset={NONE}"]))
    trained: Any = OmegaConf.to_container(cfg)
    return [
        f"{key}: {_shown(before)} -> {_shown(now)}"
        for key, before, after, now in _differences(without, with_it, trained, "")
        if now == after or (isinstance(now, dict) and isinstance(after, dict))
    ]


def _is_choice(word: str, choices: Any) -> bool:
    """Whether an argument chooses a file of a group, or leaves one out, and sets no value."""
    key, _, value = word.lstrip("+~").partition("=")
    return (key in choices or word.startswith("~")) and "." not in key and value[:1] != "{"


def _differences(
    before: Any, after: Any, now: Any, path: str
) -> Iterator[tuple[str, Any, Any, Any]]:
    """(key, before, after, now) where the first two differ."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            yield path, before, after, now
        return
    now = now if isinstance(now, dict) else {}
    for key in after | before:
        old, new, trained = (node.get(key, ABSENT) for node in (before, after, now))
        yield from _differences(old, new, trained, f"{path}.{key}" if path else str(key))


def _shown(value: Any) -> str:
    """A value; of a part its class and its plain arguments."""
    if not isinstance(value, dict):
        return "null" if value is None else str(value)
    plain = {k: v for k, v in value.items() if not isinstance(v, dict) and k[0] != "_"}
    name = str(value.get("_target_", "")).rpartition(".")[2]
    return f"{name}({', '.join(f'{k}={_shown(v)}' for k, v in plain.items())})"
