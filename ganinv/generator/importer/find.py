"""`generator.weights=FILE`: where that is, which is known without torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ganinv.core.errors import WeightsMissing, explain

SHIPPED = Path(__file__).parents[1] / "weights"


def find(weights: str, origin: str | None) -> Path:
    """The file that `weights` means: a path, or a name that ganinv ships or $GANINV_WEIGHTS holds.

    Raises:
        WeightsMissing: nowhere; the message says where the file comes from.
    """
    places = [Path(weights).expanduser(), SHIPPED / f"{weights}.safetensors"]
    if folder := os.environ.get("GANINV_WEIGHTS"):
        places.append(Path(folder) / weights)
    for place in places:
        with suppress(OSError, ValueError):  # a name that is none, a folder that is closed
            if place.is_file():
                return place
    shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.safetensors"))) or "none"
    raise WeightsMissing(
        explain(
            f"generator.weights={weights}, which is no file (looked at "
            f"{', '.join(str(place) for place in places)})",
            f"a generator file{f' from {origin}' if origin else ''}",
            "pass generator.weights=/path/to/file, put the file into $GANINV_WEIGHTS, or use a "
            f"shipped generator: {shipped}",
        )
    )
