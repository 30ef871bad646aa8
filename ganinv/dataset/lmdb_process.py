"""Reads an LMDB in a process of its own, which a damaged database may end: the file is mapped into
memory and its pages are trusted by the library.

Its argument is the database. On its input: an empty line for all keys, else a key in hexadecimal.
On its output: of each answer its length as 8 bytes, little-endian, and its bytes; of the keys each
one likewise, then a length of -1. It ends when its input does, so it never outlives who started it.
Imports nothing of ganinv.
"""

from __future__ import annotations

import sys
from typing import Any

END, FAULT, TOO_LARGE = -1, -2, -3
MAX_BYTES = 256 << 20  # of one image file; a damaged entry may claim anything


def answer(length: int, data: bytes = b"") -> None:
    """Write a length and the bytes."""
    sys.stdout.buffer.write(length.to_bytes(8, "little", signed=True) + data)


def keys(database: Any) -> None:
    """All keys. They come in order; a damaged tree of pages may lead in circles."""
    last = b""
    with database.begin() as transaction:
        for key in transaction.cursor().iternext(keys=True, values=False):
            if key <= last:
                raise ValueError("its keys are not in order")
            last = bytes(key)
            answer(len(last), last)
    answer(END)


def main() -> None:
    """Answer until the input ends."""
    import lmdb

    try:
        database = lmdb.open(sys.argv[1], readonly=True, lock=False, readahead=False)
        for line in sys.stdin:
            if not line.strip():
                keys(database)
            else:
                with database.begin(buffers=True) as transaction:
                    found = transaction.get(bytes.fromhex(line))
                    if found is None:
                        answer(END)
                    elif len(found) > MAX_BYTES:
                        answer(TOO_LARGE)
                    else:
                        answer(len(found), bytes(found))
            sys.stdout.buffer.flush()
    except (lmdb.Error, OSError, ValueError) as error:
        words = str(error)[:200].encode()
        answer(FAULT)
        answer(len(words), words)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
