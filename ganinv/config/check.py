"""Refusals of combinations that cannot work, before any data is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganinv.core.errors import ConfigError, explain


def check(generator: Any, data: Any, splits: Sequence[str] = ("train", "val")) -> None:
    """Refuse a generator whose images cannot be compared with the data's.

    A dataset whose images are drawn from the generator names no sizes.

    Raises:
        ConfigError: the generator's size is not among the data's `generator_resolutions`.
        DataError: the data are missing or incomplete.
    """
    check_resolution(generator, data.generator_resolutions, data.image_size)
    data.check(splits)


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
