"""Whatever ganinv imports, pyproject.toml asks for: an installed package finds it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from tests.house.tree import PACKAGE, ROOT, assert_none, at, parsed, sources

BROUGHT = {"botocore": "boto3", "dlib": "dlib-bin", "starlette": "gradio"}  # module -> its owner
GIVEN = {"torch_utils"}  # of NVIDIA's code, for which ganinv/interop/nvidia writes files


def required(extras: bool) -> set[str]:
    """Names of the distributions that an installation has, or may have with extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for name, packages in project["optional-dependencies"].items():
        asked += packages if extras and name != "dev" else []
    return {normal(re.split(r"[<>=\[ ;]", package)[0]) for package in asked}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """(line, top module, whether at once and not within a function) of everything imported."""
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            yield node.lineno, name.split(".")[0], id(node) in at_once  # type: ignore[attr-defined]


def test_every_package_that_is_imported_is_asked_for() -> None:
    """What a module imports at once is no extra's alone, but in those for extras."""
    owners = packages_distributions()
    ours, known = required(extras=False), required(extras=True)
    faults = []
    for path in sources():
        for line, module, at_once in imported(parsed(path)):
            own = module in sys.stdlib_module_names or module == PACKAGE.name or module in GIVEN
            dists = {normal(name) for name in owners.get(module, [])}
            dists |= {BROUGHT[module]} if module in BROUGHT else set()
            if not own and not dists & (ours if at_once else known):
                faults.append(f"{at(path, line)}: {module} of {', '.join(dists) or 'nothing'}")
    assert_none(faults)


def test_a_package_that_nobody_asked_for_is_seen() -> None:
    (found,) = imported(ast.parse("def f():\n    from flask.views import View"))
    assert found == (2, "flask", False) and "flask" not in required(extras=True)
