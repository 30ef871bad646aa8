"""What is known of a dataset's images: records of plain values, and how an attribute is named.

`smile` as it stands in the record; a part of a list by its place, `hair_rgb.0`; whether a text is
this one by `hair_name=blond`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import config_error, shown

LISTED = 40
Records = Sequence[Mapping[str, Any]]


def usual(record: Mapping[str, Any]) -> list[str]:
    """The attributes of a record that are numbers or a yes or no."""
    names = []
    for name, value in record.items():
        if type(value) in (bool, int, float):
            names.append(name)
        if type(value) is list and all(type(v) in (int, float) for v in value):
            names += [f"{name}.{i}" for i in range(len(value))]
    return names


def values(records: Records, attribute: str) -> tuple[Tensor, str]:
    """[N] float64 of an attribute, and its kind, "yes_no" or "number".

    Raises:
        ConfigError: it is not there, or is text.
    """
    found = [_value(record, attribute) for record in records]
    if all(type(v) is bool for v in found):
        return torch.tensor(found, dtype=torch.float64), "yes_no"
    if not all(type(v) in (int, float) for v in found):
        odd = next(v for v in found if type(v) not in (int, float))
        raise config_error(
            f"the attribute {attribute}, {shown(odd)}", "a number, or true or false",
            f"of text ask for one value: {attribute}=VALUE; of a list for a place: {attribute}.0",
        )  # fmt: skip
    return torch.tensor(found, dtype=torch.float64), "number"


def _value(record: Mapping[str, Any], attribute: str) -> Any:
    name, equals, asked = attribute.partition("=")
    if equals and name in record:
        return str(record[name]) == asked
    name, dot, place = attribute.rpartition(".")
    if attribute not in record and dot and place.isdigit():
        parts = record.get(name)
        if isinstance(parts, list) and int(place) < len(parts):
            return parts[int(place)]
    if attribute not in record:
        listed = ", ".join(list(record)[:LISTED])
        raise config_error(f"no attribute {attribute}", f"one of {listed}", "name one of these")
    return record[attribute]
