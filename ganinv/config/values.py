"""What a value of a config may be: its constructor's annotation, and the range of its key.

One check serves what the user typed (`check.py`) and what a file holds (`stored.py`): nothing is
converted, so that 1e3 is no whole number and "2" no number.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as SequenceType
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ganinv.config.ranges import LENGTHS, RANGES

LONGEST_TEXT, LONGEST_LIST = 4096, 256
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Parameter:
    """One argument that a constructor takes by its name."""

    annotation: Any
    required: bool


@cache
def parameters_of(constructor: Callable[..., Any]) -> dict[str, Parameter]:
    """Name -> parameter. `**rest` stands for the parameters of the class that it is handed to."""
    found: dict[str, Parameter] = {}
    for function in _signatures(constructor):
        hints = get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if name != "self" and parameter.kind in (
                inspect.Parameter.KEYWORD_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            ):
                required = parameter.default is inspect.Parameter.empty
                found.setdefault(name, Parameter(hints.get(name, Any), required))
    return found


def _signatures(constructor: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    if not inspect.isclass(constructor):
        yield constructor
        return
    for owner in constructor.__mro__:
        if "__init__" in vars(owner) and owner is not object:
            function = vars(owner)["__init__"]
            yield function
            kinds = {p.kind for p in inspect.signature(function).parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                return


def fault_of(key: str, value: Any, annotation: Any) -> str | None:
    """What was expected of the value of `key`, in words; None where it is just that.

    Args:
        key: the last part of its name, which the ranges go by.
        value: plain data: null, booleans, numbers, text, lists and mappings of these.
        annotation: of the constructor's parameter. A class of neither kind stands for a part: a
            mapping with a `_target_`, whose contents are the caller's to check.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return None
    if origin in (Union, types.UnionType):
        return _union_fault(key, value, inner)
    if origin is Literal:
        names = ", ".join(map(str, inner))
        return None if type(value) is str and value in inner else f"one of {names}"
    if annotation in PLAIN or annotation is None:
        return _plain_fault(key, value, annotation)
    if origin in (list, tuple, SequenceType):
        return _list_fault(key, value, inner, fixed=origin is tuple and Ellipsis not in inner)
    if origin in (dict, Mapping):
        return _mapping_fault(key, value, inner)
    is_part = isinstance(value, Mapping) and type(value.get("_target_")) is str
    return None if is_part else "a part: a mapping with a _target_"


def as_annotated(value: Any, annotation: Any) -> Any:
    """A value that `fault_of` takes, whole numbers as floats where the annotation has only these:
    torch asks for betas of one type, and `[0, 0.99]` is a list of two."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if type(value) is int:
        members = inner if origin in (Union, types.UnionType) else (annotation,)
        return float(value) if float in members and int not in members else value
    if isinstance(value, list | tuple) and origin in (list, tuple, SequenceType):
        fixed = origin is tuple and Ellipsis not in inner and len(inner) == len(value)
        kinds = inner if fixed else (inner[0],) * len(value)
        items = (as_annotated(item, kind) for item, kind in zip(value, kinds, strict=True))
        return type(value)(items)
    return value


def _union_fault(key: str, value: Any, members: tuple[Any, ...]) -> str | None:
    # a tensor, which Adam also takes for a number, is nothing that a config can hold
    members = tuple(m for m in members if getattr(m, "__name__", "") != "Tensor")
    faults = [fault_of(key, value, member) for member in members]
    if None in faults:
        return None
    if type(value) in (int, float) and not isinstance(value, bool):  # a number out of its range
        numeric = [f for m, f in zip(members, faults, strict=True) if m in (int, float)]
        faults = numeric + [f for f in faults if f not in numeric]
    return " or ".join(dict.fromkeys(fault for fault in faults if fault is not None))


def _plain_fault(key: str, value: Any, kind: Any) -> str | None:
    if kind in (None, type(None)):
        return None if value is None else "null"
    if kind is bool:
        return None if type(value) is bool else "true or false"
    if kind is str:
        return text_fault(value)
    words = "a whole number" if kind is int else "a number"
    allowed = RANGES.get(key)
    whole = type(value) is int
    if not whole and (kind is int or type(value) is not float or not math.isfinite(value)):
        return words if allowed is None else allowed.words(words)
    return None if allowed is None else allowed.fault(value, words)


def text_fault(value: Any) -> str | None:
    """Text of one line that names nothing to be put in its place."""
    if type(value) is not str:
        return "text"
    if len(value) > LONGEST_TEXT:
        return f"text of at most {LONGEST_TEXT:,} characters"
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        return "text of one line, without control characters"
    return 'text without "${"' if "${" in value else None


def _list_fault(key: str, value: Any, inner: tuple[Any, ...], *, fixed: bool) -> str | None:
    if not isinstance(value, list | tuple):
        return "a list"
    if len(value) > LONGEST_LIST:
        return f"a list of at most {LONGEST_LIST}"
    length = len(inner) if fixed else LENGTHS.get(key, len(value))
    if len(value) != length:
        return f"a list of {length}"
    kinds = inner if fixed else (inner[0],) * len(value)
    faults = [fault_of(key, item, kind) for item, kind in zip(value, kinds, strict=True)]
    found = next((fault for fault in faults if fault is not None), None)
    return None if found is None else f"a list, each of it {found}"


def _mapping_fault(key: str, value: Any, inner: tuple[Any, ...]) -> str | None:
    if not isinstance(value, Mapping) or len(value) > LONGEST_LIST:
        return "a mapping"
    for name, item in value.items():
        if (fault := text_fault(name)) or (fault := fault_of(key, item, inner[1])):
            return f"a mapping, each of it {fault}"
    return None
