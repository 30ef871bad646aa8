"""Reads arrays of a `.npz` as numbers, as GANSpace publishes its components: a zip file with a
plain `.npy` for each name. Nothing in it is executed; an array has at most `MOST` bytes, however
small the file that unpacks to it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ganinv.core.errors import WeightsError, explain, reason_of
from ganinv.core.safe.io import check_file
from ganinv.core.safe.npy import array_of
from ganinv.core.safe.unpickle import Unreadable
from ganinv.core.safe.zip_file import open_zip

MOST = 16 << 20  # bytes of an array; GANSpace's components have 160 kB
MAX_FILE = 1 << 30


def read_npz(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The arrays of these names; others are not read.

    Raises:
        WeightsMissing: no such file.
        WeightsError: no such zip file, one without these arrays, or arrays that are not numbers.
    """
    check_file(path, "file of components")
    try:
        if (size := path.stat().st_size) > MAX_FILE:
            raise Unreadable(f"{size} bytes, more than {MAX_FILE}")
        with open(path, "rb") as file, open_zip(file, size, compressed=True) as archive:
            return {name: _array(archive, f"{name}.npy") for name in names}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, Unreadable, ValueError,
            NotImplementedError, RuntimeError) as error:  # fmt: skip
        why = str(error) if isinstance(error, Unreadable) else reason_of(error)
        raise WeightsError(
            explain(f"{path} was refused: {why}", f"arrays of numbers: {', '.join(names)}, as "
                    "GANSpace saves its components", "pass the published file")
        ) from None  # fmt: skip


def _array(archive: zipfile.ZipFile, name: str) -> Tensor:
    if name not in archive.NameToInfo:
        raise Unreadable(f"no array {name.removesuffix('.npy')}")
    with archive.open(name) as file:
        data = file.read(MOST + 1)
    if len(data) > MOST:
        raise Unreadable(f"an array {name.removesuffix('.npy')} of more than {MOST} bytes")
    return array_of(data)
