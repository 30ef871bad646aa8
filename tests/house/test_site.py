"""The site: every key of conf/ with its comment, equations as they stand, a strict build."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house.tree import CONF, ROOT, assert_none, at

SCREEN = 56  # lines of the README, of which a table's row is one


def loaded(name: str) -> Any:
    """docs/<name>.py, which is no package's."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = loaded("reference")


def dotted(node: Any, path: str = "") -> dict[str, Any]:
    """Every key of a mapping, of inner ones too, with its value."""
    found = {}
    for key, value in node.items():
        name = f"{path}.{key}" if path else str(key)
        found |= {name: value} | (dotted(value, name) if isinstance(value, dict) else {})
    return found


def test_the_reference_has_every_key_of_conf_with_its_value() -> None:
    faults = []
    for path in sorted(CONF.rglob("*.yaml")):
        content = yaml.safe_load(path.read_text()) or {}
        count = len(content.pop("defaults", []))
        known = reference.read_config(path.read_text())
        inline = [f"{e.key}." for e in known.entries if e.value.startswith("{")]
        values = {k: v for k, v in dotted(content).items() if not k.startswith(tuple(inline))}
        said = {e.key for e in known.entries}
        faults += [f"{at(path)}: {values.keys() ^ said}"] * (values.keys() != said)
        faults += [f"{at(path)}: its defaults list"] * (count != len(known.builds_on))
        faults += [
            f"{at(path)}: {entry.key} is {values[entry.key]}, not {entry.value}"
            for entry in known.entries
            if entry.value and yaml.safe_load(entry.value) != values.get(entry.key)
        ]
    assert_none(faults)


def test_comments_stay_with_their_keys() -> None:
    file = reference.read_config(
        "# @package _global_\n# What it is,\n# in two lines.\ndefaults:\n  - base  # first\n"
        "a: 1   # behind\n       # and below\n# above\nb:\n  c: '#f00'  # a colour | of `x_y`\n"
    )
    assert file.about == "What it is,\nin two lines.\n"
    assert [(e.key, e.comment) for e in file.builds_on] == [("base", "first")]
    said = [(e.key, e.value, e.comment) for e in file.entries]
    assert said == [
        ("a", "1", "behind and below"), ("b", "", "above"),
        ("b.c", "'#f00'", "a colour | of `x_y`"),
    ]  # fmt: skip
    assert reference.prose(said[2][2]) == r"a colour \| of `x_y`"
    assert reference.prose("see docs/DATA.md <b>") == r"see [data](../DATA.md) \<b\>"


def test_the_pages_of_conf_and_of_the_rooms() -> None:
    pages = reference.made_pages()
    assert "| `lpips.weight` | `0.8` |" in pages["config/loss.md"]
    assert "- `preset/" not in pages["config/index.md"]
    assert "[inversion](inversion.md) | `bdinvert`, `clone`" in pages["config/index.md"]
    assert "::: ganinv.inversion.pti" in pages["api/inversion.md"]
    assert "core.safe" not in pages["api/core.md"] and "api/cli.md" not in pages


def test_equations_keep_their_lines() -> None:
    pytest.importorskip("griffe", reason="the extra docs is not installed")
    equations = loaded("equations")
    text = "One.\n\nwp  [B,L,D]  codes\nx   image\n\nTwo\nlines.\n\nArgs:\n    a: of  b."
    fenced = (
        "One.\n\n```text\nwp  [B,L,D]  codes\nx   image\n```\n\nTwo\nlines.\n\nArgs:\n    a: of  b."
    )
    assert equations.preformatted(text) == fenced


def test_the_readme_is_one_screen_of_why_two_commands_one_picture_one_table() -> None:
    text = (ROOT / "README.md").read_text()
    fences = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    assert len(text.splitlines()) <= SCREEN
    assert [len(fence.splitlines()) for fence in fences] == [2, 1]  # to run it; its tests
    assert len(re.findall(r"!\[", text)) == 1
    assert len(re.findall(r"^\|(---\|)+$", text, re.MULTILINE)) == 1


def test_the_site_builds_without_warnings_and_asks_nobody(tmp_path: Path) -> None:
    """The network is forbidden here (tests/conftest.py), and a strict build ends at a warning. One
    room's Python stands for all of them, which .ci/run builds."""
    pytest.importorskip("material", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path),
                         extra={"generator": False, "rooms": ["method"]})  # fmt: skip
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    pages = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.html")}
    written = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert written <= set(pages) and {"config/index.html", "api/method.html"} <= set(pages)
    first = pages["index.html"].read_text()
    assert all(f'href="{name}"' in first for name in written - {"index.html"})
    assert_none(
        f"{name}: loads {found}"
        for name, path in pages.items()
        for found in re.findall(
            r"<(?:script|img|link rel=\"(?:stylesheet|preconnect|icon)\")[^>]*(?:src|href)=\""
            r"((?:https?:)?//[^\"]+)",
            path.read_text(),
        )
    )
    assert "w_avg + E(s)" in pages["api/method.html"].read_text()
