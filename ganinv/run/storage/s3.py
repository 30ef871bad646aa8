"""S3, over boto3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ganinv.core.errors import ConfigError, explain, reason_of
from ganinv.run.disk import ILL
from ganinv.run.storage.base import (
    Entry,
    NotThere,
    Storage,
    StorageFault,
    StorageRefusal,
    check_number,
)

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # of one request, within one of our tries: a checkpoint has hundreds of parts
TRANSFERS = 4  # parts at a time: training needs the machine more


def client() -> Any:
    """This process's client, which threads share.

    Raises:
        ConfigError: boto3 is not installed.
        StorageFault: settings of which it makes none.
    """
    with _faults():
        return _client(os.getpid())


@cache
def _client(process: int) -> Any:
    """One of its own for each process: they must not be shared over a fork."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        given = "an address s3://... without the package boto3"
        raise ConfigError(explain(given, "it", 'pip install "ganinv[remote]"')) from error
    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    config = Config(retries=retries, connect_timeout=TIMEOUT, read_timeout=TIMEOUT)
    return boto3.client("s3", config=config)


@contextmanager
def _faults() -> Iterator[None]:
    """What boto3 raises, told apart."""
    from boto3.exceptions import Boto3Error
    from botocore import exceptions as known

    try:
        yield
    except (StorageFault, ConfigError, FileNotFoundError):
        raise
    except Exception as error:  # boto3's, botocore's and urllib3's have no common class
        inner = error.__cause__ or error.__context__
        cause = inner if isinstance(error, Boto3Error) and inner else error
        if isinstance(cause, known.ClientError):
            raise _answer(cause) from error
        refused = (known.NoCredentialsError, known.PartialCredentialsError, known.NoRegionError,
                   known.CredentialRetrievalError, known.ParamValidationError,
                   known.ProfileNotFound)  # fmt: skip
        if isinstance(cause, refused):
            raise StorageRefusal(reason_of(cause)) from error
        if isinstance(error, OSError) and error.errno in ILL:
            raise  # the disk's of this machine
        raise StorageFault(reason_of(cause)) from error


def _answer(error: Any) -> StorageFault:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response.get("Error", {}).get("Code", "")
    said = (
        f"the store answers {status} {code}" if code != str(status) else f"the store answers {code}"
    )
    if status == 404 and code != "NoSuchBucket":
        return NotThere(said)
    if status >= 500 or status in (0, 408, 429) or code in ("RequestTimeout", "SlowDown"):
        return StorageFault(said)
    return StorageRefusal(said)


class S3Storage(Storage):
    """A prefix of a bucket."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        place = self.address.partition("://")[2]
        self._bucket, _, prefix = place.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def inside(self, name: str) -> S3Storage:
        """A longer prefix."""
        return S3Storage(f"{self.address}/{name}")

    def files(self, under: str = "") -> dict[str, Entry]:
        """Page by page."""
        found: dict[str, Entry] = {}
        with _faults():
            pages = client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + under):
                for one in page.get("Contents", ()):
                    name = one["Key"][len(self._prefix) :]
                    found[name] = Entry(int(one["Size"]), str(one["ETag"]))
                check_number(found, self.address)
        return found

    def entry(self, name: str) -> Entry:
        """A HEAD."""
        with _faults():
            head = client().head_object(**self._place(name))
        return Entry(int(head["ContentLength"]), str(head["ETag"]))

    def read(self, name: str, most: int) -> bytes:
        """A GET."""
        with _faults():
            content: bytes = client().get_object(**self._place(name))["Body"].read(most + 1)
        return content

    def write(self, name: str, content: bytes) -> None:
        """A PUT."""
        with _faults():
            client().put_object(**self._place(name), Body=content)

    def upload(self, path: Path, name: str) -> None:
        """A PUT, or in parts, which become an object when all are there."""
        with _faults():
            client().upload_file(str(path), **self._place(name), Config=_transfer())

    def copy(self, name: str, other: str) -> None:
        """By the store, in parts where it is long."""
        with _faults():
            client().copy(self._place(name), **self._place(other), Config=_transfer())

    def remove(self, name: str) -> None:
        """A DELETE."""
        with _faults():
            client().delete_object(**self._place(name))

    def _fetch(self, name: str, path: Path) -> None:
        with _faults():
            client().download_file(**self._place(name), Filename=str(path), Config=_transfer())


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(max_concurrency=TRANSFERS)
