"""Equations and legends of docstrings keep their lines on the site (an extension of griffe)."""

from __future__ import annotations

import re
from typing import Any

import griffe

ALIGNED = re.compile(r"\S {2,}\S")  # columns set by hand
SECTION = re.compile(r"(Args|Raises|Returns|Yields|Attributes|Examples?|Note):$")


def preformatted(docstring: str) -> str:
    """A docstring whose paragraphs with columns are fenced as code; sections of arguments and
    errors, and what is indented as code already, stay."""
    paragraphs = []
    for paragraph in re.split(r"\n{2,}", docstring.strip("\n")):
        lines = paragraph.split("\n")
        plain = SECTION.match(lines[0]) or paragraph.startswith(("    ", "```"))
        if not plain and any(ALIGNED.search(line) for line in lines):
            paragraph = "\n".join(["```text", *lines, "```"])
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


class Equations(griffe.Extension):
    """Applies `preformatted` to every docstring that is read."""

    def on_instance(self, *, obj: griffe.Object, **rest: Any) -> None:
        """One module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = preformatted(obj.docstring.value)
