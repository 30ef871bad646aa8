"""Sets of shards on a web server or in an object store, read through a bounded local cache.

    https://host/path        any server of files
    s3://bucket/prefix       any S3 endpoint (AWS_ENDPOINT_URL; keys from the environment only)

A set's index and offsets are fetched when a process opens it. A tar is fetched whole when its first
image is wanted, its sha256 held against the index, and put into the cache under its name only then;
all processes of a node share the cache. When it is full, the tars that were not used for
longest leave it; one that a process still has open stays readable for it.

A server that answers with an error of its own, too slowly, or with too few bytes is asked again,
`TRIES` times over about two minutes. Then the tar counts as unreadable (`stream.py`: its images are
replaced, counted, and stop the run over `max_bad_fraction`).
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import io
import logging
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from ganinv.core.errors import ConfigError, DataError, explain, reason_of, shown
from ganinv.core.network import MALFORMED
from ganinv.core.safe.io import sha256_file, write_atomic
from ganinv.dataset.index_file import (
    MAX_INDEX,
    ShardEntry,
    check_name,
    parse_index,
    source_format,
)

log = logging.getLogger(__name__)

TRIES = 8
FIRST_WAIT = 1.0  # seconds, doubled each time
LONGEST_WAIT = 60.0
TIMEOUT = 30.0  # seconds without a byte
GRACE, SLOWEST = 60.0, 10_000  # seconds; bytes a second: a transfer that takes longer is a fault
ROOM = 4096  # bytes of offsets.npy beside its numbers
T = TypeVar("T")


class Unreachable(OSError):
    """A file from afar that could not be had: why, in one line."""


class _Passing(Exception):
    """A fault that may pass: worth another try."""


def cache_folder() -> Path:
    """Where sets from afar are kept, `$GANINV_CACHE/remote`."""
    return Path(os.environ.get("GANINV_CACHE", "~/.cache/ganinv")).expanduser() / "remote"


@dataclass(frozen=True)
class RemoteShards:
    """Where the tars of a set come from.

    Attributes:
        address: of the set.
        folder: its part of the cache.
        limit: bytes that all tars in the cache may take.
    """

    address: str
    folder: Path
    limit: int

    def open(self, entry: ShardEntry) -> int:
        """A file descriptor of a tar, fetched if it is not in the cache.

        Args:
            entry: what the index says of it: name, bytes, sha256.

        Raises:
            Unreachable: it cannot be had.
        """
        check_name(entry["name"])
        path = self.folder / entry["name"]
        with _locked(self.folder / f".{entry['name']}.lock"):
            if not path.is_file():
                self._make_room(entry)
                _retry(lambda: self._fetch(entry, path), f"{self.address}/{entry['name']}")
            os.utime(path)  # used now
            return os.open(path, os.O_RDONLY)

    def _fetch(self, entry: ShardEntry, path: Path) -> None:
        partial = path.with_name(f".{path.name}.partial")
        try:
            with open(partial, "wb") as file:
                file.truncate(entry["bytes"])  # others see how much room it will take
                size, digest = _copy(f"{self.address}/{entry['name']}", file, entry["bytes"])
                file.truncate(size)
            if size != entry["bytes"] or digest != entry["sha256"]:
                raise _Passing(
                    f"{size:,} of {entry['bytes']:,} bytes came"
                    if size != entry["bytes"]
                    else "its sha256 is not that of the index"
                )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, entry: ShardEntry) -> None:
        if entry["bytes"] > self.limit:
            raise Unreachable(
                f"{entry['name']} has {entry['bytes'] / 2**30:.2f} GiB, more than the whole cache "
                f"(dataset.cache_gib={self.limit / 2**30:g})"
            )
        top = self.folder.parent
        with _locked(top / ".lock"):
            tars: list[tuple[float, int, Path]] = []
            for pattern in ("*/*.tar", "*/.*.partial"):
                for path in top.glob(pattern):
                    try:
                        found = path.stat()
                    except FileNotFoundError:  # another process has just finished with it
                        continue
                    tars.append((found.st_mtime, found.st_size, path))
            used = sum(size for _, size, _ in tars)
            for _, size, path in sorted(tars):
                if used + entry["bytes"] <= self.limit:
                    break
                if path.suffix == ".tar":
                    path.unlink(missing_ok=True)
                    used -= size


@cache
def fetch_set(address: str, limit: int) -> RemoteShards:
    """Fetch index and offsets of a set, once a process. Another index is another folder.

    Raises:
        DataError: they cannot be had, or do not fit each other.
    """
    try:
        index = _retry(lambda: _bytes(f"{address}/index.json", MAX_INDEX), f"{address}/index.json")
        raw = parse_index(index)  # names first: nothing is opened that the server chose
        name = hashlib.sha256(address.encode() + index).hexdigest()[:16]
        folder = cache_folder() / name
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"):
            offsets = folder / "offsets.npy"
            if not offsets.is_file():
                found = _retry(lambda: _offsets(address, raw), f"{address}/offsets.npy")
                write_atomic(offsets, found)
            if sha256_file(offsets) != raw["offsets_sha256"]:
                offsets.unlink()
                raise ValueError(f"{offsets} was damaged and is removed; start again")
            write_atomic(folder / "index.json", index)
    except (*MALFORMED, MemoryError, OSError) as error:
        why = str(error) if isinstance(error, Unreachable | ValueError) else reason_of(error)
        raise DataError(
            explain(
                f"the set of shards at {address} cannot be opened: {why[:500]}",
                "a folder that ganinv shard wrote, with index.json, offsets.npy and its tars",
                "check dataset.root, the network and (for s3) AWS_ENDPOINT_URL and the keys",
            )
        ) from error
    return RemoteShards(address, folder, limit)


def _offsets(address: str, raw: dict[str, Any]) -> bytes:
    numbers = 6 if source_format(raw.get("source")) else 4
    samples = sum(entry["samples"] for entry in raw["shards"])
    found = _bytes(f"{address}/offsets.npy", 8 * numbers * samples + ROOM)
    if hashlib.sha256(found).hexdigest() != raw["offsets_sha256"]:
        raise _Passing("its sha256 is not that of the index")
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process of the node at a time; the others wait."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _retry(fetch: Callable[[], T], what: str) -> T:
    """Fetch, again and again while the fault may pass."""
    for attempt in range(1, TRIES + 1):
        try:
            return fetch()
        except _Passing as error:
            reason = str(error)
        if attempt < TRIES:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
            log.warning("%s: %s; try %d of %d in %.1f s", what, reason, attempt + 1, TRIES, wait)
            time.sleep(wait)
    raise Unreachable(f"{what}: {reason}, {TRIES} times")


def _bytes(address: str, most: int) -> bytes:
    found = io.BytesIO()
    _copy(address, found, most)
    return found.getvalue()


def _copy(address: str, file: IO[bytes], most: int) -> tuple[int, str]:
    """Write what comes to a file; its length and sha256. No more than `most` bytes are taken, and
    no slower a trickle than `SLOWEST`."""
    digest, size, begin = hashlib.sha256(), 0, time.monotonic()
    with _opened(address) as stream:
        announced = _announced(stream)
        if announced is not None and announced > most:
            raise Unreachable(
                f"{address}: {announced:,} bytes announced, at most {most:,} expected"
            )
        while chunk := _read(stream, 1 << 18):
            size += len(chunk)
            if size > most:
                raise Unreachable(f"{address}: more bytes than the {most:,} that are expected")
            if time.monotonic() - begin > GRACE + size / SLOWEST:
                raise _Passing(f"{size:,} bytes in {time.monotonic() - begin:.0f} s, too slow")
            digest.update(chunk)
            file.write(chunk)
    if announced is not None and size < announced:
        raise _Passing(f"the connection ended early ({size:,} of {announced:,} bytes)")
    return size, digest.hexdigest()


def _announced(stream: Any) -> int | None:
    """The Content-Length, where a server gives one."""
    headers = getattr(stream, "headers", None)
    text = str(headers.get("Content-Length", "")) if headers is not None else ""
    return int(text) if text.isdigit() and len(text) < 20 else None


def _read(stream: Any, size: int) -> bytes:
    try:  # read1: what is there, so that a trickle is seen
        found: bytes = stream.read1(size) if hasattr(stream, "read1") else stream.read(size)
        return found
    except http.client.IncompleteRead as error:
        raise _Passing(f"the connection ended early ({error})") from error
    except Exception as error:  # what S3's client wraps has no common class but Exception
        if isinstance(error, OSError) or type(error).__module__.startswith(("urllib3", "botocore")):
            raise _Passing(f"{type(error).__name__}: {error}") from error
        raise


@contextmanager
def _opened(address: str) -> Iterator[Any]:
    opened = _open_s3(address) if address.startswith("s3://") else _open_http(address)
    try:
        yield opened
    finally:
        opened.close()


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to http and https, to nothing else."""

    def redirect_request(self, request: Any, *arguments: Any) -> Any:
        """The new request, or none."""
        address = str(arguments[-1])
        if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
            raise Unreachable(f"{request.full_url}: sent on to {shown(address)}, which is no web")
        return super().redirect_request(request, *arguments)


_OPENER = urllib.request.OpenerDirector()
for _handler in (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    _HttpOnly,
):  # no ftp, no files
    _OPENER.add_handler(_handler())


def _open_http(address: str) -> Any:
    try:
        return _OPENER.open(urllib.parse.quote(address, safe=":/%"), timeout=TIMEOUT)
    except Unreachable:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code in (408, 425, 429):
            raise _Passing(f"the server answers {error.code} {error.reason}") from error
        raise Unreachable(f"{address}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        raise _Passing(f"{getattr(error, 'reason', None) or error or type(error)}") from error


@cache
def _s3_client(process: int) -> Any:
    """A client of this process: they must not be shared over a fork."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise ConfigError(
            explain("dataset.root=s3://... without boto3", "it", 'pip install "ganinv[remote]"')
        ) from error
    once = {"total_max_attempts": 1}  # retried here, where it is logged
    return boto3.client(
        "s3", config=Config(retries=once, connect_timeout=TIMEOUT, read_timeout=TIMEOUT)
    )


def _open_s3(address: str) -> Any:
    client = _s3_client(os.getpid())
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    bucket, _, key = address.removeprefix("s3://").partition("/")
    try:
        return client.get_object(Bucket=bucket, Key=key)["Body"]
    except ClientError as error:
        code = error.response["ResponseMetadata"]["HTTPStatusCode"]
        said = f"the store answers {code} {error.response['Error'].get('Code', '')}"
        if code >= 500 or code in (408, 429):
            raise _Passing(said) from error
        raise Unreachable(f"{address}: {said}") from error
    except NoCredentialsError as error:
        raise Unreachable(f"{address}: no keys in the environment ({error})") from error
    except BotoCoreError as error:
        raise _Passing(f"{type(error).__name__}: {error}") from error
