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


USER_ERRORS = (ConfigError, DataError, WeightsError, WeightsMissing)


def explain(given: str, expected: str, todo: str) -> str:
    """The one form of every refusal: 'given; expected ...; to fix: ...'."""
    return f"{given}; expected {expected}. To fix: {todo}"
