"""What the house tests share: the repository's files, faults with an address, composed configs."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ganinv"
CONF = ROOT / "conf"
FLOORS = {
    "core": 0,
    **dict.fromkeys(["backbone", "generator", "discriminator", "dataset", "optimizer", "task"], 1),
    **dict.fromkeys(["encoder", "loss", "metric"], 2),
    **dict.fromkeys(["inversion", "editing"], 3),
    **dict.fromkeys(["method", "interop"], 4),
    "config": 5,
    "run": 6,
    **dict.fromkeys(["trainer", "evaluation"], 7),
    "cli": 8,
}
ENTRY_POINTS = ("train.py", "evaluate.py")


def tracked() -> list[Path]:
    """Files under version control that exist; outside a git clone, all files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [p for p in ROOT.rglob("*") if not {".git", ".venv", "runs"} & set(p.parts)]
    return [path for path in paths if path.is_file()]


def sources() -> list[Path]:
    """The package's modules and the entry points."""
    entries = [ROOT / name for name in ENTRY_POINTS if (ROOT / name).is_file()]
    return sorted(PACKAGE.rglob("*.py")) + entries


def parsed(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(), str(path))


def room_of(path: Path) -> str:
    """`loss` for ganinv/loss/pixel.py; an entry point's own name; "" for ganinv/__init__.py."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) == 1 else parts[1] if len(parts) > 2 else ""


def at(path: Path, line: int = 1) -> str:
    """`ganinv/loss/pixel.py:3`, clickable in most terminals."""
    return f"{path.relative_to(ROOT)}:{line}"


def assert_none(faults: Iterable[str]) -> None:
    """Fail with every fault on a line of its own."""
    found = list(dict.fromkeys(faults))
    assert not found, f"{len(found)} fault(s)\n" + "\n".join(found)


def groups() -> list[Path]:
    """The folders of conf/."""
    return sorted(path for path in CONF.iterdir() if path.is_dir())


def names(group: str) -> list[str]:
    """The choices of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(config: str, overrides: list[str]) -> dict[str, Any]:
    """What `python <config>.py <overrides>` composes, interpolations resolved, `???` left in."""
    state = HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(config, overrides=overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        del cfg.hydra
        container = OmegaConf.to_container(cfg, resolve=True)
    finally:
        HydraConfig.instance().cfg = state
    assert isinstance(container, dict)
    return container  # type: ignore[return-value]


Keys = tuple[str, ...]


def built(node: Any, path: Keys = ()) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Every mapping with a `_target_` in a config, with the keys that lead to it."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from built(value, (*path, str(key)))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from built(value, (*path, str(i)))
