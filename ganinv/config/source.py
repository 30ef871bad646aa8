"""What a constructor takes, read from the text of its module.

Importing the module would import torch, which takes longer than all else that is looked at before a
run is refused. What is read is a class's `__init__` (its own or the one that it inherits; `**rest`
stands for the arguments of the class above) or a function's arguments, with their annotations.
Only ganinv's and torch's modules are read; a class of the user's own is imported.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, Optional, Union

from hydra.utils import get_object

from ganinv.config.values import Parameter, parameters_of

READ = ("ganinv", "torch")  # packages whose text is read
KNOWN: dict[str, Any] = {
    **{kind.__name__: kind for kind in (bool, int, float, str, list, tuple, dict)},
    "None": None,
    "typing.Any": Any,
    "typing.Literal": Literal,
    "typing.Optional": Optional,
    "typing.Union": Union,
    "collections.abc.Sequence": Sequence,
    "collections.abc.Mapping": Mapping,
}
Definition = tuple[str, ast.ClassDef | ast.FunctionDef]  # module, what is defined there


def parameters_of_target(target: str) -> dict[str, Parameter]:
    """Name -> parameter of the class or function that a `_target_` names, as `parameters_of`; empty
    for a class of the user's own that says nothing of its arguments.

    Raises:
        ImportError, AttributeError, TypeError, ValueError: there is none of this name.
    """
    if not _is_read(target):
        own = get_object(target)
        with suppress(NameError, TypeError, ValueError):
            return parameters_of(own)
        return {}
    found: dict[str, Parameter] = {}
    for module, function in _signatures(target):
        given = function.args
        without = len(given.args) - len(given.defaults)
        defaults = [*[None] * without, *given.defaults, *given.kw_defaults]
        for argument, default in zip([*given.args, *given.kwonlyargs], defaults, strict=True):
            if argument.arg != "self" and argument.arg not in found:
                annotation = _annotation(module, argument.annotation)
                found[argument.arg] = Parameter(annotation, default is None)
    return found


def ancestors(target: str) -> list[str]:
    """The class that a `_target_` names and those above it, by their full names."""
    if not _is_read(target):
        return [f"{c.__module__}.{c.__qualname__}" for c in get_object(target).__mro__]
    return [f"{module}.{node.name}" for module, node in _lineage(target)]


def has_method(target: str, name: str) -> bool:
    """Whether the class that a `_target_` names has a method."""
    if not _is_read(target):
        return hasattr(get_object(target), name)
    return any(_function(node, name) is not None for _, node in _lineage(target))


def _is_read(target: str) -> bool:
    return target.partition(".")[0] in READ


def _definition(target: str) -> Definition:
    """Where a class or function is defined.

    Raises:
        ImportError, AttributeError: nowhere.
    """
    module, _, name = target.rpartition(".")
    found = _names(module).get(name)
    if isinstance(found, ast.ClassDef | ast.FunctionDef):
        return module, found
    if isinstance(found, str) and _is_read(found) and found != target:
        return _definition(found)
    raise AttributeError(f"no class or function {name} in {module}")


@cache
def _names(module: str) -> dict[str, ast.expr | ast.ClassDef | ast.FunctionDef | str]:
    """What a module's names stand for: a definition, an expression, or another full name.

    Raises:
        ImportError: no such module.
    """
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    above = Path(spec.origin or "").parent if spec is not None else Path()
    path = above.joinpath(*rest, "__init__.py")
    is_package = path.is_file()
    if not is_package:
        path = above.joinpath(*rest).with_suffix(".py")
    if spec is None or not rest or not path.is_file():
        raise ImportError(f"no module {module}")
    names: dict[str, Any] = {}
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: (1 if is_package else 0) - node.level or None]
            base = ".".join(parts) + f".{node.module}" if node.level else node.module
            names |= {a.asname or a.name: f"{base}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            names[node.target.id] = node.value
    return names


def _statements(module: ast.Module) -> Iterator[ast.stmt]:
    """Those at the top, and those of `if TYPE_CHECKING:`."""
    for node in module.body:
        yield node
        if isinstance(node, ast.If):
            yield from node.body


def _lineage(target: str) -> list[tuple[str, ast.ClassDef]]:
    """The class and those above it that are read, in the order in which Python looks them up."""
    module, node = _definition(target)
    if not isinstance(node, ast.ClassDef):
        return []
    found: list[tuple[str, ast.ClassDef]] = []
    for base in node.bases:
        name = _names(module).get(ast.unparse(base))
        above = name if isinstance(name, str) else f"{module}.{ast.unparse(base)}"
        if name is not None and above.startswith("ganinv."):
            later = _lineage(above)
            found = [one for one in found if one not in later] + later
    return [(module, node), *found]


def _signatures(target: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    module, node = _definition(target)
    if isinstance(node, ast.FunctionDef):
        yield module, node
        return
    for owner, described in _lineage(target):
        if (function := _function(described, "__init__")) is not None:
            yield owner, function
            if function.args.kwarg is None:
                return


def _function(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    found = (f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == name)
    return next(found, None)


def _annotation(module: str, node: ast.expr | None) -> Any:
    """The type that an annotation stands for; a class that no value of a config can be, a part or a
    tensor, as an empty one of its name."""
    if node is None:
        return Any
    if isinstance(node, ast.Constant):
        text = ast.parse(node.value, mode="eval").body if isinstance(node.value, str) else None
        return None if text is None else _annotation(module, text)
    if isinstance(node, ast.BinOp):
        return _annotation(module, node.left) | _annotation(module, node.right)
    if isinstance(node, ast.Subscript):
        kind = _annotation(module, node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if kind is Literal:
            return Literal[tuple(ast.literal_eval(value) for value in inner)]
        if kind not in KNOWN.values():
            return kind
        kinds = tuple(... if _is_ellipsis(one) else _annotation(module, one) for one in inner)
        return kind[kinds[0] if len(kinds) == 1 else kinds]
    return _named(module, ast.unparse(node))


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _named(module: str, name: str) -> Any:
    stands = _names(module).get(name, name)
    if isinstance(stands, str):
        if stands in KNOWN:
            return KNOWN[stands]
        above, _, last = stands.rpartition(".")
        if above.startswith("ganinv.") and last in _names(above):
            return _named(above, last)
    elif isinstance(stands, ast.expr):
        return _annotation(module, stands)
    return _empty(name.rpartition(".")[2])


@cache
def _empty(name: str) -> type:
    return type(name, (), {})
