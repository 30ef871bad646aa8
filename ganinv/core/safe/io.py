"""Safe file reading and writing: nothing here ever runs code found in a file.

torch is imported where tensors are read or written: a run's folder is looked at before that.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ganinv.core.errors import WeightsError, WeightsMissing, explain, reason_of
from ganinv.core.safe.unpickle import Names, Unreadable

if TYPE_CHECKING:
    from torch import Tensor


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write to a temporary name beside `path`, sync, rename: a reader sees all of it or nothing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say where
        raise


def check_file(path: Path, what: str = "weights file") -> None:
    """A file that can be opened and has an end: no folder, no pipe, no device.

    Raises:
        WeightsMissing: nothing there.
        WeightsError: something else than a file.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsMissing(f"no {what} at {path}; check the path") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{str(path)[:200]} cannot be opened: {reason_of(error)}") from error
    if not stat.S_ISREG(mode):
        raise WeightsError(f"{path} is no file; expected a {what}. To fix: check the path")


def read_bytes(path: Path, most: int, first: int = -1) -> bytes:
    """The bytes of a file, or its `first` ones.

    Raises:
        WeightsMissing: nothing there.
        WeightsError: no file, one of more than `most` bytes, or one that cannot be read.
    """
    check_file(path)
    try:
        if (size := path.stat().st_size) > most:
            raise WeightsError(f"{path} has {size} bytes; expected at most {most}")
        with open(path, "rb") as file:
            return file.read(first)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {reason_of(error)}") from error


def load_tensors(path: str | os.PathLike[str], more: Names | None = None) -> Any:
    """Read a `.pt/.pth/.ckpt` of torch.save, on the CPU, without running anything of it.
    A `Namespace` of command-line options, as rosinality's trainer saves it, is plain values too.

    Args:
        path: the file.
        more: names that it may use beside those of tensors and plain values.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a torch file, cut short, one that would need to run code to be read, or
            one that holds more than its length: compressed, overlapping or repeated numbers.
    """
    path = Path(path)
    check_file(path)
    try:
        with open(path, "rb") as file:
            return tensors_of(file, path, more)
    except OSError as error:
        raise _no_tensors(path, reason_of(error)) from error


def tensors_of(
    file: IO[bytes], path: Path, more: Names | None = None, *, outline: bool = False
) -> Any:
    """As `load_tensors`, of an open file or one in memory.

    Args:
        file: what is read.
        path: for messages.
        more: as `load_tensors`.
        outline: tensors on torch's meta device, whose numbers are not read.
    """
    import torch

    from ganinv.core.safe.torch_file import read_torch

    try:
        with torch.device("cpu"):  # also where networks are being built on meta
            return read_torch(file, more, outline=outline)
    except (OSError, Unreadable, MemoryError, RuntimeError) as error:
        why = str(error) if isinstance(error, Unreadable) else reason_of(error)
        raise _no_tensors(path, why) from error


def _no_tensors(path: Path, why: str) -> WeightsError:
    return WeightsError(
        explain(
            f"{path} cannot be read as plain tensors ({why})",
            "a torch file of tensors, numbers and strings",
            _todo(why),
        )
    )


def _todo(why: str) -> str:
    if "cut short" in why or "were changed" in why or "damaged" in why:
        return "fetch or copy the file again"
    if "not a name of tensors" in why:
        return (
            "of a whole network (torch.save(G)) save its tensors, with the code that wrote it: "
            "torch.save({'g_ema': G.state_dict()}, FILE) of rosinality's classes, or "
            "pickle.dump({'G_ema': G}, file) of NVIDIA's; ganinv never runs code stored in one"
        )
    return "check the file; ganinv never runs code stored in one"


def read_safetensors(
    path: str | Path, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a `.safetensors` file: its tensors and its metadata, each value parsed from JSON.

    All of it is read into memory: the tensors do not depend on what becomes of the file.

    Args:
        path: the file.
        prefix: of the names of the tensors that are read.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a safetensors file, cut short, or larger than memory.
    """
    return _safetensors(Path(path), prefix)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a `.safetensors` file alone; no tensor is read. Errors as above."""
    return _safetensors(Path(path), None)[1]


def _safetensors(path: Path, prefix: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from ganinv.core.safe.safetensors_file import read_file

    check_file(path)
    try:
        return read_file(path, prefix)
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        why = str(error) if isinstance(error, ValueError) else reason_of(error)
        raise WeightsError(
            explain(
                f"{path} is not a readable safetensors file ({why})",
                "one that ganinv wrote, whole",
                "fetch or copy the file again",
            )
        ) from error


def write_safetensors(
    path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    """Write tensors and JSON-able metadata to a `.safetensors` file, atomically."""
    from safetensors.torch import save

    text = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_atomic(path, save(contiguous, metadata=text))
