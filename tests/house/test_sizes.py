"""The sizes that keep a file readable at one sitting. An exception says why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import FAST
from tests.house.tree import CONF, ENTRY_POINTS, ROOT, assert_none, at, parsed, room_of, sources

STEP = 60  # of a method, docstring and signature not counted
FUNCTION = 60  # so counted too
YAML = 60
EXCEPTIONS: dict[str, str] = {
    # "ganinv/room/file.py" or "ganinv/room/file.py:function": "why it must be longer",
}


def limit(path: Path) -> int:
    """Lines a module may have."""
    if path.name in ENTRY_POINTS and path.parent in (ROOT, ROOT / "ganinv/cli"):
        return 80
    if room_of(path) == "method":
        return 250
    return 700 if path.parent == ROOT / "ganinv/generator" else 400


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (function.end_lineno or 0) - body[0].lineno + 1


def long_functions(path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            most = STEP if node.name == "step" else FUNCTION
            if length(node) > most:
                key = f"{path.relative_to(ROOT)}:{node.name}"
                yield key, f"{at(path, node.lineno)}: {node.name} has {length(node)} > {most} lines"


def long_things() -> dict[str, str]:
    """What is over its limit: key -> fault."""
    found: dict[str, str] = {}
    for path in [*sources(), *sorted((ROOT / "benchmarks").glob("*.py"))]:
        lines = len(path.read_text().splitlines())
        if lines > limit(path):
            key = str(path.relative_to(ROOT))
            found[key] = f"{at(path, lines)}: {lines} lines, at most {limit(path)}"
        found |= dict(long_functions(path, parsed(path)))
    for path in sorted(CONF.rglob("*.yaml")):
        lines = len(path.read_text().splitlines())
        if lines > YAML:
            found[str(path.relative_to(ROOT))] = f"{at(path, lines)}: {lines} lines, at most {YAML}"
    return found


def test_nothing_is_too_long() -> None:
    advice = "split it by meaning, or give the reason in EXCEPTIONS of tests/house/test_sizes.py"
    found = long_things()
    assert_none(f"{found[key]}; {advice}" for key in found if key not in EXCEPTIONS)


def test_no_exception_outlives_its_reason() -> None:
    stale = set(EXCEPTIONS) - set(long_things())
    assert_none(f"EXCEPTIONS[{key!r}]: it is short enough now; delete the line" for key in stale)


def test_a_long_function_is_seen() -> None:
    code = 'def step(x):\n    """Say."""\n' + "    x = 1\n" * 61
    assert list(long_functions(ROOT / "ganinv/method/example.py", ast.parse(code)))


def test_the_fast_ring_names_what_is_there() -> None:
    assert_none(f"tests/{name} is gone" for name in FAST if not (ROOT / "tests" / name).exists())
