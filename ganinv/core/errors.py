"""The errors a user can cause. Each message says what was given, what was expected, what to do."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration that cannot work; raised before the first byte of data is read."""


class DataError(ValueError):
    """A shard, index or image that is missing, truncated or wrong."""


class WeightsError(ValueError):
    """A weights file that does not fit: wrong architecture, wrong size, wrong generator."""


class WeightsMissing(FileNotFoundError):
    """A weights file that is not there; the message names its source and what could replace it."""


class RunError(RuntimeError):
    """What stops a run on its way: a full disk, a lost rank, ranks that drifted apart, losses that
    stay NaN."""


class NotFinite(RunError):
    """Gradients that were NaN or Inf too often in a row."""


USER_ERRORS = (ConfigError, DataError, WeightsError, WeightsMissing, RunError)


def explain(given: str, expected: str, todo: str) -> str:
    """The one form of every refusal: 'given; expected ...; to fix: ...'."""
    return f"{given}; expected {expected}. To fix: {todo}"
