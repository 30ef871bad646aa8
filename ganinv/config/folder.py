"""Where the config files are: conf/ of the checkout, or the copy of it in an installed package."""

from __future__ import annotations

from pathlib import Path

from ganinv.core.command import PACKAGE, installed

CONF = (PACKAGE if installed() else PACKAGE.parent) / "conf"


def choices(group: str, *folders: Path) -> set[str]:
    """Names of the files of a group in CONF and in further folders."""
    return {path.stem for folder in (CONF, *folders) for path in (folder / group).glob("*.yaml")}
