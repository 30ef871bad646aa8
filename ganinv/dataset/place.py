"""Where a set of shards is, which is looked at before anything of it is read."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from ganinv.core.errors import ConfigError, DataError, explain

INDEX = "index.json"
SCHEMES = ("http", "https", "s3")


def check_place(folder: Path) -> None:
    """Refuse a folder that is not there or holds no set.

    Raises:
        DataError: no folder, or one without an index.
    """
    if not os.path.isdir(folder):
        raise DataError(
            explain(
                f"no folder {folder}",
                "a set of shards",
                "write one: ganinv shard SOURCE --out OUT --size N --val 1000 --test 1000 "
                "(ganinv shard --help)",
            )
        )
    if not (folder / INDEX).is_file():
        raise DataError(
            explain(
                f"{folder} has no index.json",
                "a set of shards with its index",
                f"for a folder of images: ganinv shard {folder} --out OUT --size 256; for a set "
                "that was copied: copy index.json and offsets.npy too",
            )
        )


def is_remote(root: str) -> bool:
    """Whether a root is an address, and one that is understood.

    Raises:
        ConfigError: another scheme, or a secret in the address, which would end up in logs.
    """
    if "://" not in root:
        return False
    parts = urllib.parse.urlsplit(root)
    shown = f"{parts.scheme}://{parts.hostname}{parts.path}"
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigError(explain(f"dataset.root={shown}", f"a folder, or {known}", "correct it"))
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            explain(
                f"dataset.root={shown} with a user, a password or a token in it",
                "an address without secrets: the configuration is written to disk and to W&B",
                "for s3 export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        )
    return True
