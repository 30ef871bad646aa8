"""Regions of an image that losses look at closely, in px."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ganinv.core.errors import ConfigError, explain


def check_regions(regions: Mapping[str, Sequence[int] | None], image_size: Sequence[int]) -> None:
    """Refuse regions that leave the image.

    Raises:
        ConfigError: naming one.
    """
    for name, region in regions.items():
        if region is None:
            continue
        edges = [int(edge) for edge in region]
        if len(edges) != 4 or not (
            0 <= edges[0] < edges[1] <= image_size[0] and 0 <= edges[2] < edges[3] <= image_size[1]
        ):
            raise ConfigError(
                explain(
                    f"dataset.regions.{name}={edges}",
                    f"[top,bottom,left,right] inside {image_size[0]} x {image_size[1]} px",
                    f"set dataset.regions.{name}=...",
                )
            )
