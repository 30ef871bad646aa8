"""Refusals of combinations that cannot work, before any data is read."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from ganinv.core.errors import ConfigError, explain


def check(cfg: DictConfig, generator: Any, data: Any) -> None:
    """Refuse a generator whose images cannot be compared with the data's.

    Raises:
        ConfigError: the generator's size is not among the data's `generator_resolutions`.
    """
    sizes = list(cfg.dataset.get("generator_resolutions") or [])
    if sizes and generator.resolution not in sizes:
        raise ConfigError(
            explain(
                f"a generator of {generator.resolution} px with a dataset of "
                f"{cfg.dataset.resolution} px images",
                f"a generator of {' or '.join(map(str, sizes))} px",
                "choose another generator=... or dataset=...",
            )
        )
