"""`ganinv doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "wandb",
    "lpips",
    "webdataset",
    "torchmetrics",
    "onnx",
    "onnxruntime",
)


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="list machine, versions, devices, and every weights file with found or missing",
        description="Look at this machine. Nothing is downloaded or changed.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print three tables; the exit code is 0 also when optional files are missing."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, columns, rows in (
        ("machine", ("what", "value"), machine()),
        ("feature networks", ("network", "file", "state"), backbones()),
        ("generators", ("generator=", "file", "state"), generators()),
    ):
        table = Table(title=title, title_justify="left", header_style="bold", show_lines=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    folder = os.environ.get("GANINV_WEIGHTS")
    console.print(
        f"Files are looked for in $GANINV_WEIGHTS ({folder or 'not set'}) and torch's cache; "
        "each can also be given by its path."
    )
    return 0


def machine() -> list[tuple[str, str]]:
    """Versions, processors, memory, devices, caches."""
    import torch

    from ganinv import __version__
    from ganinv.config.folder import CONF

    rows = [("ganinv", __version__), ("configs", str(CONF)), ("Python", platform.python_version())]
    rows += [(name, _version(name)) for name in PACKAGES]
    rows += [("system", platform.platform()), ("CPU cores", str(os.cpu_count()))]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows.append(("memory", f"{pages / 2**30:.1f} GiB"))
    if not torch.cuda.is_available():
        rows.append(("GPU", "none that torch can use: trainer=cpu"))
    for i in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(i)
        rows.append((f"GPU {i}", f"{found.name}, {found.total_memory / 2**30:.0f} GiB"))
    cache = Path(os.environ.get("GANINV_CACHE", "~/.cache/ganinv")).expanduser()
    rows.append(("drawn faces", f"{cache} ({'there' if cache.is_dir() else 'not drawn yet'})"))
    return rows


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed (optional)"


def backbones() -> list[tuple[str, str, str]]:
    """Every published feature network: found with its sha256, or where it comes from."""
    from ganinv.backbone.catalogue import CATALOGUE, locate
    from ganinv.core.errors import WeightsError, WeightsMissing
    from ganinv.core.safe.io import sha256_file

    rows = []
    for name, entry in CATALOGUE.items():
        try:
            path = locate(name)
            state = f"found: {path} (sha256 {sha256_file(path)[:16]})"
        except WeightsMissing:
            state = f"missing; from {entry.source}. Without it: {entry.instead}"
        except WeightsError as error:
            state = f"damaged: {error}"
        rows.append((name, entry.file, state))
    return rows


def generators() -> list[tuple[str, str, str]]:
    """Every conf/generator file that names weights."""
    from omegaconf import OmegaConf

    from ganinv.config.folder import CONF
    from ganinv.core.errors import WeightsMissing
    from ganinv.generator.importer.find import find

    rows = []
    for path in sorted((CONF / "generator").glob("*.yaml")):
        cfg = OmegaConf.load(path)
        if "weights" not in cfg or OmegaConf.is_missing(cfg, "weights"):
            continue
        try:
            state = f"found: {find(cfg.weights, cfg.origin)}"
        except WeightsMissing:
            state = f"missing; from {cfg.origin}"
        rows.append((path.stem, cfg.weights, state))
    return rows
