"""What stands in W&B's offline file, `run-<id>.wandb`: records in LevelDB's log format."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2 as pb

BLOCK, HEADER = 32768, 7  # bytes; the file begins with 7 of its own
FULL, FIRST, MIDDLE, LAST = range(1, 5)


def records(folder: Path) -> list[pb.Record]:
    """Those of the run in `folder/wandb/offline-run-*`, in order."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return [pb.Record.FromString(content) for content in contents(path.read_bytes())]


def contents(log: bytes) -> Iterator[bytes]:
    """The records' bytes."""
    assert log.startswith(b":W&B")
    place, whole = HEADER, b""
    while place + HEADER <= len(log):
        if BLOCK - place % BLOCK < HEADER:  # padding at the end of a block
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", log[place + 4 : place + HEADER])
        whole += log[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield whole
            whole = b""
