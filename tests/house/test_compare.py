"""docs/COMPARE.md: every cell says where it was read, and every test that it names is there."""

from __future__ import annotations

import ast
import re

from tests.house.tree import ROOT, assert_none

PAGE = ROOT / "docs" / "COMPARE.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
MARKS = re.compile(r"\[((?:[a-z]\d+(?:, )?)+)\]")
SPEAKS_FOR_ITSELF = re.compile(r"-|\?|none stored|.*Lightning's.*|its own|each row .*")


def cells(text: str) -> list[tuple[str, str]]:
    """(row's name, cell) of every table, without its head."""
    found = []
    for line in text.splitlines():
        row = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(row) == 10 and row[0] and row[1] != "ganinv":
            found += [(row[0], cell) for cell in row[1:]]
    return found


def faults(text: str) -> list[str]:
    """Cells without a place, marks without a file, and files without a mark."""
    tables, _, where = text.partition("\n## Where\n")
    known = set(re.findall(r"(?<![\w/.])([a-z]\d+)\*? (?=[`.\w])", where))
    used: set[str] = set()
    wrong = []
    for name, cell in cells(tables):
        marks = [mark for group in MARKS.findall(cell) for mark in group.split(", ")]
        used |= set(marks)
        if not marks and not SPEAKS_FOR_ITSELF.fullmatch(cell):
            wrong.append(f"{name}: {cell!r} says not where it was read")
        wrong += [f"{name}: no file {mark}" for mark in marks if mark not in known]
    return wrong + [f"{mark} is a file of no cell" for mark in sorted(known - used)]


def test_every_cell_says_where_it_was_read() -> None:
    text = PAGE.read_text()
    assert len(cells(text)) > 150
    assert_none(faults(text))


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 30
    tests = {
        file: {n.name for n in ast.walk(ast.parse((ROOT / file).read_text())) if _is_test(n)}
        for file in {file for file, _ in named}
    }
    assert_none(f"{file} has no {name}" for file, name in named if name not in tests[file])


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def test_a_cell_without_a_place_is_seen() -> None:
    head = "| a | " + " | ".join(["yes [t1]"] * 8)
    page = f"{head} | yes |\n\n## Where\n- t1 `x`\n- t2 `y`\n"
    assert faults(page) == ["a: 'yes' says not where it was read", "t2 is a file of no cell"]
    assert faults(page.replace("t2 `y`", "").replace("[t1] |", "[t3] |", 1))[0] == "a: no file t3"
