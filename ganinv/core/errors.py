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


def config_error(given: str, expected: str, todo: str) -> ConfigError:
    """A setting that cannot be, in the words of `explain`; to be raised."""
    return ConfigError(explain(given, expected, todo))


def shown(value: object) -> str:
    """A value that came out of a file, for a message: short whatever it is, on one line.

    Containers are named by their type only: a list that holds itself twice, and so on, takes
    minutes to print.
    """
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int:
        return str(value) if abs(value) < 1 << 64 else "a number of more than 64 bits"
    if type(value) is str:
        return repr(value[:60]) + ("..." if len(value) > 60 else "")
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def named(key: object) -> str:
    """The name of a tensor or of a setting out of a file, for a message: its first characters, on
    one line, without what would steer a terminal."""
    text = key if type(key) is str else shown(key)
    plain = "".join(c if c.isprintable() else "?" for c in text[:100])
    return plain + ("..." if len(text) > 100 else "")


def reason_of(error: BaseException) -> str:
    """Why a file could not be read or written, on one line, without the words of a library that
    speak of its own inside."""
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        return f"{error.strerror}{where}"
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(error)[:2000])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
