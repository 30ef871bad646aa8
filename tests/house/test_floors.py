"""Who may import whom, and what may not be called at all: read from the syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.tree import ENTRY_POINTS, FLOORS, ROOT, assert_none, at, parsed, room_of, sources

TOP = max(FLOORS.values()) + 1  # of the entry points
PLACE = {  # third-party module -> rooms that may import it
    "wandb": {"trainer"},
    "wandb_workspaces": {"trainer"},
    "hydra": {"config", "run", "trainer", "cli"},
    "omegaconf": {"config", "run", "evaluation", "trainer", "cli"},
    "torch.distributed": {"trainer", "run"},
    "pytorch_lightning": {"dataset", "method", "trainer", "cli/_fitting.py"},
    "pickle": {"interop/nvidia_pickle.py"},  # which writes one, and reads none
    "dill": set(), "cloudpickle": set(), "joblib": set(), "marshal": set(),
}  # fmt: skip
WITHOUT_SYNC = ("method", "loss")  # rooms where a step is computed
MEASURED = re.compile("loss|total|value|norm|logit|score")  # names that tensors have there


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported or reached as torch.distributed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield node.lineno, "torch.distributed"


def import_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    room = room_of(path)
    floor = FLOORS.get(room, TOP)
    for line, name in imports(tree):
        if name.startswith("."):
            yield f"{at(path, line)}: relative import; write `from ganinv...`"
        parts = name.split(".")
        if parts[0] == "ganinv" and len(parts) > 1 and parts[1] in FLOORS:
            other = FLOORS[parts[1]]
            if parts[1] != room and other >= floor:
                yield (
                    f"{at(path, line)}: {room} (floor {floor}) imports {parts[1]} (floor {other}); "
                    "imports go strictly downward: inject the object, or move what is shared down"
                )
        for module, rooms in PLACE.items():
            place = {room, str(path.relative_to(ROOT)).removeprefix("ganinv/")}
            if (name + ".").startswith(module + ".") and not place & rooms:
                where = ", ".join(sorted(rooms)) or "nowhere"
                yield f"{at(path, line)}: {module} has its place: {where}"


def test_the_one_module_that_pickles_unpickles_nothing() -> None:
    text = (ROOT / "ganinv/interop/nvidia_pickle.py").read_text()
    assert "from pickle import dumps\n" in text and text.count("import pickle") == 0


def files_of(name: str) -> list[Path]:
    """The modules of ours that `import name` or `from ... import name` runs, without packages."""
    parts = name.split(".")
    for end in (len(parts), len(parts) - 1):
        path = ROOT.joinpath(*parts[:end]).with_suffix(".py")
        if path.is_file():
            return [path]
    return []


def cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """The groups of files in which each leads back to itself."""
    reach = {start: {start} for start in graph}
    for start, seen in reach.items():
        todo = list(graph[start])
        seen.clear()
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                todo += graph.get(name, ())
    grouped: set[str] = set()
    for start in sorted(graph):
        if start in reach[start] and start not in grouped:
            group = [n for n in sorted(graph) if n in reach[start] and start in reach[n]]
            grouped |= set(group)
            yield group


def call_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    own = path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, where = ast.unparse(node.func), at(path, node.lineno)
        if name in ("torch.load", "torch.hub.load") and own != "ganinv/core/safe/io.py":
            yield f"{where}: {name}; read files through ganinv.core.safe.io"
        if name in ("exec", "eval", "__import__"):
            yield f"{where}: {name}() runs text as code"
        for keyword in node.keywords:
            unsafe = {"allow_pickle": True, "weights_only": False, "trust_remote_code": True}
            value = getattr(keyword.value, "value", None)
            if keyword.arg in unsafe and value is unsafe[keyword.arg]:
                yield f"{where}: {keyword.arg}={value} executes a file's code; read it without"


def sync_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        for node in ast.walk(function):
            if not isinstance(node, ast.Call):
                continue
            item = isinstance(node.func, ast.Attribute) and node.func.attr == "item"
            given = " ".join(ast.unparse(argument) for argument in node.args)
            number = getattr(node.func, "id", "") == "float" and MEASURED.search(given)
            if item or number:
                yield (
                    f"{at(path, node.lineno)}: `{ast.unparse(node)}` waits for the device; "
                    "keep losses tensors until a callback logs them"
                )


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path): path for path in sources()}
    unknown = [r for r in rooms if r and r not in FLOORS and r not in ENTRY_POINTS]
    assert_none(f"{at(rooms[r])}: room {r} has no floor: give it one in FLOORS" for r in unknown)


def test_imports_go_strictly_downward() -> None:
    assert_none(fault for path in sources() for fault in import_faults(path, parsed(path)))


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports within functions and for types only count: they say who knows whom."""
    graph = {
        str(path.relative_to(ROOT)): {
            str(found.relative_to(ROOT))
            for _, name in imports(parsed(path))
            for found in files_of(name)
            if found != path
        }
        for path in sources()
    }
    assert sum(map(len, graph.values())) > 300  # the files were found
    assert_none(
        f"{' and '.join(group)} lead to one another: move what they share below both, or inject it"
        for group in cycles(graph)
    )


def test_no_file_is_executed_by_reading_it() -> None:
    assert_none(fault for path in sources() for fault in call_faults(path, parsed(path)))


def test_no_step_waits_for_the_device() -> None:
    rooms = [path for path in sources() if room_of(path) in WITHOUT_SYNC]
    assert_none(fault for path in rooms for fault in sync_faults(path, parsed(path)))


@pytest.mark.parametrize(
    ("check", "room", "code"),
    [
        (import_faults, "encoder", "from ganinv.loss.pixel import L2"),
        (import_faults, "backbone", "def f():\n    import ganinv.generator.stylegan2"),
        (import_faults, "core", "from .errors import ConfigError"),
        (import_faults, "method", "from omegaconf import DictConfig"),
        (import_faults, "method", "import wandb"),
        (import_faults, "method", "from torch import distributed"),
        (import_faults, "run", "import pytorch_lightning as pl"),
        (import_faults, "loss", "import torch\nn = torch.distributed.get_rank()"),
        (import_faults, "generator", "import pickle"),
        (call_faults, "generator", "torch.load(path, weights_only=True)"),
        (call_faults, "dataset", "np.load(path, allow_pickle=True)"),
        (call_faults, "core", "exec(text)"),
        (sync_faults, "method", "def step(self, x):\n    total = loss.item()"),
        (sync_faults, "loss", "def forward(self, x):\n    return float(loss)"),
    ],
)
def test_a_fault_is_seen(check, room, code) -> None:
    assert list(check(ROOT / "ganinv" / room / "example.py", ast.parse(code)))


def test_a_circle_is_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}, "f": set()}
    assert list(cycles(graph)) == [["a", "b", "c"], ["e"]]
    code = "def f():\n    from ganinv.run.launch import store"
    (found,) = [path for _, name in imports(ast.parse(code)) for path in files_of(name)]
    assert found == ROOT / "ganinv" / "run" / "launch.py"
