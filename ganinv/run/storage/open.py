"""An address -> the place."""

from __future__ import annotations

from ganinv.core.errors import ConfigError, explain, reason_of
from ganinv.run.storage.base import Storage, check_address
from ganinv.run.storage.filesystem import FsspecStorage
from ganinv.run.storage.s3 import S3Storage, client


def open_storage(address: str, key: str) -> Storage:
    """The place at an address; asks nothing of it yet.

    Args:
        address: of a folder.
        key: under which it was given, for the message.

    Raises:
        ConfigError: no such kind of place, or no package for it.
    """
    check_address(address, key)
    try:
        if address.lower().startswith("s3://"):
            client()
            return S3Storage(address)
        import fsspec

        return FsspecStorage(address, fsspec.core.url_to_fs(address, use_listings_cache=False)[0])
    except ConfigError:
        raise
    except ImportError as error:
        given, todo = f"{key}={address} without its package ({error})", "install it"
        raise ConfigError(explain(given, "the package that fsspec needs for it", todo)) from error
    except Exception as error:  # of a package for one kind of store
        known = "s3://, or what fsspec knows: gs://, abfs://, sftp://, file://"
        given = f"{key}={address}, which cannot be opened ({reason_of(error)})"
        raise ConfigError(explain(given, known, "correct it")) from error
