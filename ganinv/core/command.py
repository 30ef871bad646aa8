"""Commands that are printed to be pasted: their words for the shell and for Hydra's parser."""

from __future__ import annotations

import re
import shlex
import sys
import unicodedata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ENTRIES = ("train", "evaluate")  # commands whose words Hydra reads

PLAIN = re.compile(r"[A-Za-z_/][\w./%@:+-]*", re.ASCII)
WORDS = re.compile(r"(null|true|false|nan|inf)", re.IGNORECASE)


def installed() -> bool:
    """Whether this is a package by itself, which has conf/ within it, and not a checkout."""
    return (PACKAGE / "conf").is_dir()


def program() -> list[str]:
    """The words by which this process was started, without its arguments: `ganinv`, or
    `python SCRIPT`."""
    script = Path(sys.argv[0])
    ours = script.name == "ganinv" or script == PACKAGE / "cli" / "main.py"
    return ["ganinv"] if ours else ["python", sys.argv[0]]


def entry(name: str) -> str:
    """What starts a training or an evaluation for whoever started this process: `python train.py`,
    from where he did it, or `ganinv train`.

    Args:
        name: one of `ENTRIES`.
    """
    started = program()
    if started == ["ganinv"] or (installed() and not _is_entry(started[-1])):
        return f"ganinv {name}"
    script = Path(started[-1] if _is_entry(started[-1]) else "train.py").with_name(f"{name}.py")
    return shlex.join(["python", str(script)])


def _is_entry(script: str) -> bool:
    return Path(script).name in [f"{name}.py" for name in ENTRIES]


def override(key: str, value: object) -> str:
    """`key=value` of a text (a path, a name), as a word of a shell's command that Hydra reads as
    that very text."""
    return shlex.quote(f"{key}={_hydra(str(value))}")


def _hydra(text: str) -> str:
    """Within Hydra's quotes a backslash counts only before a quote, and `${` is OmegaConf's."""
    text = re.sub(r"(\\*)\$\{", lambda found: 2 * found.group(1) + r"\${", text)
    if PLAIN.fullmatch(text) and not WORDS.fullmatch(text):
        return text
    text = re.sub(r"(\\*)(')", lambda found: 2 * found.group(1) + r"\'", text)
    text = re.sub(r"(\\+)$", lambda found: 2 * found.group(1), text)
    return f"'{text}'"


def printable(text: str, limit: int = 2000) -> str:
    """A text of unknown origin for a terminal: what would steer it (escapes, line ends, marks that
    turn the direction of writing) is shown as its code."""
    shown = (
        char if unicodedata.category(char)[0] != "C" else ascii(char)[1:-1] for char in text[:limit]
    )
    return "".join(shown) + ("..." if len(text) > limit else "")
