"""Places that keep a run's files and are no folders of this machine, by their address.

    s3://bucket/prefix           any S3 endpoint, over boto3 (AWS_ENDPOINT_URL, keys as boto3 finds
                                 them)
    gs://, abfs://, sftp://...   what fsspec has, with the package for it (gcsfs, adlfs, paramiko)
    file:///folder, memory://    what fsspec brings

A file has its old bytes or all of its new ones, never some of them: S3 shows an object when all of
it has come; elsewhere a file gets its name last.
"""

from __future__ import annotations

import logging
import os
import random
import re
import secrets
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ganinv.core.errors import ConfigError, explain

log = logging.getLogger(__name__)

TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two tries; doubled each time
MOST_FILES = 200_000  # that a listing may name
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SECRET_FREE_USERS = ("abfs", "abfss", "sftp", "ssh", "smb")  # schemes whose addresses name one
T = TypeVar("T")


class StorageFault(Exception):
    """What a store did; it may pass."""


class StorageRefusal(StorageFault):
    """What will not pass by itself: no keys, no rights, no such bucket."""


class NotThere(StorageFault):
    """No such file."""


@dataclass(frozen=True)
class Entry:
    """What a listing says of a file.

    Attributes:
        bytes: its length.
        mark: changes whenever its content does.
    """

    bytes: int
    mark: str


def is_address(value: object) -> bool:
    """Whether a text is an address and not a path."""
    return isinstance(value, str) and ADDRESS.match(value) is not None


def path_or_address(text: str) -> Path | str:
    """A command's argument: a path would lose one of an address's slashes."""
    return text if is_address(text) else Path(text)


def check_address(address: str, key: str) -> None:
    """Refuse what would write a secret into configs and logs, and what names no place.

    Args:
        address: what was given.
        key: as what, for the message.

    Raises:
        ConfigError: a password, a token, a chain of file systems, or no bucket.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        user = parts.username is not None and parts.scheme not in SECRET_FREE_USERS
        secret = user or parts.password is not None or parts.query
    except ValueError as error:
        raise ConfigError(
            explain(f"{key}, which is no address ({error})", "s3://bucket/folder", "correct it")
        ) from error
    if secret:
        raise ConfigError(
            explain(
                f"{key}={shown} with a user, a password or a token in it",
                "an address without secrets: it is written to disk and to W&B",
                "give the keys by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
            )
        )
    nowhere = parts.scheme == "s3" and not parts.netloc
    if "::" in address or ".." in address.split("/") or nowhere:
        raise ConfigError(explain(f"{key}={shown}", "one place: s3://bucket/folder", "correct it"))


def patiently(action: Callable[[], T], what: str) -> T:
    """Do it, again while a fault may pass.

    Args:
        action: raises a `StorageFault`.
        what: it is about, for the log.

    Raises:
        StorageFault: of the last try; a refusal, or a file that is not there, at once.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return action()
        except (StorageRefusal, NotThere):
            raise
        except StorageFault as error:
            if attempt == TRIES:
                raise
            wait = wait_before(attempt)
            log.warning("%s: %s; try %d of %d in %.1f s", what, error, attempt + 1, TRIES, wait)
            time.sleep(wait)
    raise AssertionError


def wait_before(attempt: int) -> float:
    """Seconds to wait after so many tries failed."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)


class Storage(ABC):
    """A folder at an address; files in it are named by their path below it, with `/`.

    Every method raises `StorageFault`, `StorageRefusal` or `NotThere`.
    """

    address: str

    def at(self, name: str) -> str:
        """The address of a file."""
        return f"{self.address}/{name}"

    @abstractmethod
    def inside(self, name: str) -> Storage:
        """A folder in this one."""

    @abstractmethod
    def files(self, under: str = "") -> dict[str, Entry]:
        """The files below a folder of this one (`under` ends with `/`), by name."""

    @abstractmethod
    def entry(self, name: str) -> Entry:
        """What is known of a file."""

    @abstractmethod
    def read(self, name: str, most: int) -> bytes:
        """A small file; of one that is longer, `most` bytes and one."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""

    @abstractmethod
    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine there."""

    @abstractmethod
    def copy(self, name: str, other: str) -> None:
        """Copy a file within the store."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""

    @abstractmethod
    def _fetch(self, name: str, path: Path) -> None:
        """Copy a file to this machine."""

    def download(self, name: str, path: Path, most: int | None = None) -> Entry:
        """Copy a file to this machine: whole, or not at all; what is known of it. One that has more
        bytes than `most` is refused."""
        entry = self.entry(name)
        if most is not None and entry.bytes > most:
            raise StorageRefusal(f"{self.at(name)} has {entry.bytes:,} bytes; at most {most:,} are "
                                 "expected")  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            self._fetch(name, partial)
            if (came := partial.stat().st_size) != entry.bytes:
                raise StorageFault(f"{came:,} of {entry.bytes:,} bytes of {self.at(name)} came")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return entry


def check_number(found: dict[str, Entry], address: str) -> None:
    """Refuse an endless listing.

    Raises:
        StorageRefusal: more than `MOST_FILES`.
    """
    if len(found) > MOST_FILES:
        raise StorageRefusal(f"{address} lists more than {MOST_FILES:,} files")
