"""The pages of the site that no one writes: conf/ with its comments, and the Python (mkdocs' hooks).

config/<group>.md   every file of a group: what it is for, what it builds on, its keys, values, comments
api/<room>.md       the docstrings of a room's modules, set by mkdocstrings
"""  # noqa: E501

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?:\s+(?P<value>.*))?$")
COMMENT = re.compile(r"(?:^|\s)#\s?(?P<text>.*)$")
ROOMS = (  # whose classes and functions users call, build by a yaml, or write more of
    "core", "dataset", "generator", "discriminator", "backbone", "encoder", "task", "loss",
    "optimizer", "metric", "inversion", "editing", "method", "interop",
)  # fmt: skip
INNER = ("core/safe", "core/op", "generator/importer", "interop/nvidia")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass
class Entry:
    """A key of a config file."""

    key: str  # dotted
    value: str  # as it is written; "" of a mapping
    comment: str


@dataclass
class ConfigFile:
    """A config file as its reader sees it."""

    about: str  # the comment at its head
    builds_on: list[Entry]  # its defaults list
    entries: list[Entry]


# ------------------------------------------------------------------ conf/


def read_config(text: str) -> ConfigFile:
    """The keys of a yaml file of conf/, with the comments behind, below and above them."""
    file = ConfigFile("", [], [])
    parents: list[tuple[int, str]] = []  # of the line's key: (indent, key)
    waiting: list[str] = []  # comments above the next key
    last, column = None, None  # the entry before, and where its comment begins
    for line in text.splitlines():
        body, comment, at = split_comment(line)
        if not body.strip():
            if last is None:
                file.about += "" if comment.startswith("@package") else f"{comment}\n"
            elif at is not None and at == column:
                last.comment += f" {comment}"
            elif comment:
                waiting.append(comment)
            continue
        words, waiting, column = " ".join([*waiting, comment]).strip(), [], at
        if body.lstrip().startswith("- "):
            last = Entry(body.strip().removeprefix("- "), "", words)
            file.builds_on.append(last)
            continue
        found = KEY.match(body)
        assert found is not None, f"neither a key nor an entry of a list: {line}"
        depth = len(found["indent"])
        parents = [(level, key) for level, key in parents if level < depth]
        parents.append((depth, found["key"]))
        last = Entry(".".join(key for _, key in parents), (found["value"] or "").strip(), words)
        if last.key != "defaults":
            file.entries.append(last)
        elif last.value:  # defaults: [a, b]
            names = last.value.strip("[]").split(", ")
            file.builds_on += [Entry(name, "", "") for name in names]
    return file


def split_comment(line: str) -> tuple[str, str, int | None]:
    """A line -> what stands before its comment, the comment, and the column where it begins."""
    hidden = QUOTED.sub(lambda quoted: "_" * len(quoted[0]), line)
    found = COMMENT.search(hidden)
    if found is None:
        return line.rstrip(), "", None
    at = line.index("#", found.start())
    return line[:at].rstrip(), line[at + 1 :].strip(), at


def config_pages(conf: Path) -> dict[str, str]:
    """The pages of a folder of configs: their place on the site -> Markdown."""
    groups = sorted(path for path in conf.iterdir() if path.is_dir())
    rows = ["| group | choices |", "|---|---|"]
    pages = {}
    for group in groups:
        files = sorted(group.rglob("*.yaml"))
        named = {path.relative_to(group).with_suffix("").as_posix(): path for path in files}
        rows.append(f"| [{group.name}]({group.name}.md) | {', '.join(f'`{n}`' for n in named)} |")
        parts = [f"# {group.name}", f"The files of `conf/{group.name}/`."]
        parts += [section(name, path) for name, path in named.items()]
        pages[f"config/{group.name}.md"] = "\n\n".join(parts) + "\n"
    intro = (
        "Made from the comments of `conf/` when the site is built. `python train.py --cfg job "
        "--resolve` prints what a command composes from these."
    )
    tops = [section(path.name, path) for path in sorted(conf.glob("*.yaml"))]
    pages["config/index.md"] = "\n\n".join(["# Config files", intro, "\n".join(rows), *tops]) + "\n"
    return pages


def section(name: str, path: Path) -> str:
    """What the site says of one file."""
    file = read_config(path.read_text())
    parts = [f"## {name}", prose(file.about)]
    if file.builds_on:
        lines = [f"- `{e.key}`" + (f": {prose(e.comment)}" if e.comment else "")
                 for e in file.builds_on]  # fmt: skip
        parts.append("Builds on\n\n" + "\n".join(lines))
    if file.entries:
        rows = [f"| `{e.key}` | {code(e.value)} | {prose(e.comment)} |" for e in file.entries]
        parts.append("\n".join(["| key | value | |", "|---|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part)


def prose(text: str) -> str:
    """A comment as Markdown that shows it as it is, `code` as code, with links to the pages that it
    names."""
    words = " ".join(text.split())
    spans = re.split(r"(`[^`]+`)", words)  # text, code, text, ...
    spans[::2] = [re.sub(r"([\\`*_|<>\[\]{}#])", r"\\\1", span) for span in spans[::2]]
    plain = "".join(spans)
    return re.sub(r"docs/(\w+(?:\\_\w+)*)\.md", lambda m: _link(m[1].replace("\\", "")), plain)


def _link(name: str) -> str:
    return f"[{name.lower()}](../{name}.md)"


def code(value: str) -> str:
    """A value as it is written."""
    return f"`{value}`".replace("|", "\\|") if value else ""


# ------------------------------------------------------------------ the Python


def api_pages(package: Path, rooms: Sequence[str]) -> dict[str, str]:
    """A page of mkdocstrings' directives for each room: its place on the site -> Markdown."""
    pages = {}
    for room in (package / name for name in rooms):
        about = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        modules = [f"::: {name}" for name in _modules(room, package.parent)]
        parts = [f"# ganinv.{room.name}", about, *modules]
        pages[f"api/{room.name}.md"] = "\n\n".join(part for part in parts if part) + "\n"
    return pages


def _modules(room: Path, root: Path) -> Iterator[str]:
    for path in sorted(room.rglob("*.py")):
        within = path.relative_to(root / "ganinv").as_posix()
        if not path.name.startswith("_") and not within.startswith(INNER):
            yield ".".join(path.relative_to(root).with_suffix("").parts)


# ------------------------------------------------------------------ mkdocs


def made_pages(rooms: Sequence[str] = ROOMS) -> dict[str, str]:
    """All pages that are made."""
    return config_pages(ROOT / "conf") | api_pages(ROOT / "ganinv", rooms)


def on_config(config: Any) -> Any:
    """The made pages, and pages that nav forgot, get their place in it."""
    listed = str(config.nav)
    written = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    config.nav[-1]["Behind them"] += [name for name in written if name not in listed]
    made = made_pages(config.extra.get("rooms", ROOMS))
    for title, folder in (("Config files", "config/"), ("Python", "api/")):
        places = sorted(place for place in made if place.startswith(folder))
        first = [place for place in places if place.endswith("/index.md")]
        config.nav.append({title: first + [place for place in places if place not in first]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """The made pages join the written ones."""
    from mkdocs.structure.files import File

    for place, text in made_pages(config.extra.get("rooms", ROOMS)).items():
        files.append(File.generated(config, place, content=text))
    return files
