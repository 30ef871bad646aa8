"""Reads JSON that somebody else wrote: counted before it is parsed.

A value of JSON takes at least two bytes of text and up to some seventy of memory, so text alone
does not bound what it becomes; the signs between values do, and are counted first.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_VALUES = 4_000_000  # of some 64 bytes each
MAX_MAPPINGS = 200_000  # which take longer: two a tensor or a shard


def parse_json(data: bytes, most: int) -> Any:
    """What a JSON text says.

    Args:
        data: UTF-8.
        most: bytes that it may have.

    Raises:
        ValueError: no JSON, one key twice in a mapping, text that is no Unicode, or more values or
            deeper ones than a file of ganinv's has.
    """
    if len(data) > most:
        raise ValueError(f"{len(data):,} bytes, more than {most:,}")
    if sum(data.count(sign) for sign in (b",", b":", b"[", b"{")) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    if data.count(b"{") > MAX_MAPPINGS:
        raise ValueError(f"more than {MAX_MAPPINGS:,} mappings")
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        if re.search(rb"\\u[dD][89a-fA-F]", data):  # half a character
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("text that is no Unicode") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("values inside values without end") from None
    except ValueError as error:
        many = "integer string conversion" in str(error)
        raise ValueError("a number of too many digits" if many else str(error)) from None
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("one key twice")
    return found
