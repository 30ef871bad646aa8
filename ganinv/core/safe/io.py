"""Safe file reading and writing: nothing here ever runs code found in a file."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ganinv.core.errors import WeightsError, WeightsMissing, explain
from ganinv.core.safe.torch_file import check_shared_objects, check_size_claims


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


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Read a `.pt/.pth/.ckpt` with torch's restricted reader (`weights_only=True`), on the CPU.
    A `Namespace` of command-line options, as rosinality's trainer saves it, is plain values too.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a torch file, one that would need to run code to be read, or one that
            holds more than its length: compressed, overlapping or repeated numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsMissing(f"no weights file at {path}; check the path")
    try:
        check_size_claims(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        check_shared_objects(content)
        return content
    except Exception as error:  # torch raises a dozen kinds here; all mean "unreadable"
        raise WeightsError(
            explain(
                f"{path} cannot be read as plain tensors ({_reason(error)})",
                "a torch file of tensors, numbers and strings",
                "check the file; ganinv never runs code stored in one",
            )
        ) from error


def _reason(error: Exception) -> str:
    """What torch says is wrong, without its advice to read the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), None)
    text = told or (lines[0] if lines else "")
    text = text.split("In PyTorch 2.6")[0].split(" was not an allowed global")[0].strip()
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a `.safetensors` file: its tensors and its metadata, each value parsed from JSON.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a safetensors file, or cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsMissing(f"no weights file at {path}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata
    except (SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def write_safetensors(
    path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    """Write tensors and JSON-able metadata to a `.safetensors` file, atomically."""
    text = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_atomic(path, save(contiguous, metadata=text))
