"""`encoder.weights=FILE`: whether it is there, which is known without torch."""

from __future__ import annotations

from pathlib import Path

from ganinv.core.errors import WeightsMissing, explain


def encoder_file(path: str) -> Path:
    """Where a trained encoder's file is.

    Raises:
        WeightsMissing: no such file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise WeightsMissing(
            explain(f"encoder.weights={path}, which is no file", "a trained encoder's file",
                    "check the path, or set encoder.weights=null to train from the start")
        )  # fmt: skip
    return file
