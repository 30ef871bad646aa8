"""Commands that are printed to be pasted: their words for the shell and for Hydra's parser."""

from __future__ import annotations

import re
import shlex
import unicodedata

PLAIN = re.compile(r"[A-Za-z_/][\w./%@:+-]*", re.ASCII)
WORDS = re.compile(r"(null|true|false|nan|inf)", re.IGNORECASE)


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
