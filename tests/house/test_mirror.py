"""conf/ mirrors ganinv/, key by key: no dead key, no default in two places, everything composes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hydra.utils import get_object

from ganinv.config.start import START
from tests.house.tree import CONF, FLOORS, assert_none, at, built, composed, groups, names

ELSEWHERE = {"logger": "trainer"}  # group -> the room of its code, where the names differ
OVERLAYS = {
    "experiment",
    "preset",
    "sweep",
}  # of several groups; they build nothing
MOUNT = re.compile(r"/(\w+)@([\w.]+)")  # /backbone@identity.backbone: arcface
THIRD_PARTY = {"optimizer": "torch.optim."}
INJECTED = {  # group or nested room -> constructor arguments that only exist at run time
    "encoder": {"num_ws", "w_dim"},
    "discriminator": {"w_dim"},
    "method": {"generator", "encoder", "discriminator", "loss", "optimizer", "task"},
    "optimizer": {"params"},
    "dataset": {"source", "classes"},
    "inversion": {"model"},
    "editing": {"generator"},
    "trainer": {"run_dir", "loggers", "batch_size"},
    "logger": {"run_dir", "run_id", "hyperparameters", "job_type"},
}
BUILDER = {"encoder": set(START)}  # room -> keys that the builder reads, not the constructor
SPECIAL = {"_target_", "_partial_", "_convert_", "_recursive_"}
FILES = [
    path
    for group in groups()
    if group.name not in OVERLAYS
    for path in group.glob("*.yaml")
    if not path.read_text().startswith("# @package _global_")  # an overlay too
]


def raw(path) -> dict[str, Any]:
    """The file's own mapping over that of the same folder's files it builds on, with the files of
    other groups where it mounts them."""
    own = yaml.safe_load(path.read_text()) or {}
    defaults = own.pop("defaults", [])
    merged: dict[str, Any] = {}
    for entry in defaults:
        if isinstance(entry, str) and (path.parent / f"{entry}.yaml").is_file():
            merged |= raw(path.parent / f"{entry}.yaml")
    merged |= own
    for group, package, name in mounts(defaults):
        *parents, last = package.split(".")
        node = merged
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = raw(CONF / group / f"{name}.yaml")
    return merged


def mounts(defaults: list[Any]) -> Iterator[tuple[str, str, str]]:
    """(group, package, choice) of what a defaults list puts into a place of its own."""
    for entry in defaults:
        for key, name in entry.items() if isinstance(entry, dict) else ():
            if found := MOUNT.fullmatch(str(key)):
                yield found[1], found[2], name


def room_of(target: str) -> str:
    return target.split(".")[1] if target.startswith("ganinv.") else ""


def target_faults(group: str, path: tuple[str, ...], target: str) -> Iterator[str]:
    """The outermost object belongs to the group's room, what is nested in it to a lower floor."""
    room = ELSEWHERE.get(group, group)
    outer = len(path) == (1 if group == "loss" else 0)
    if target.startswith(tuple(THIRD_PARTY.values())):
        if outer and not target.startswith(THIRD_PARTY.get(group, "-")):
            yield f"{target} in group {group}"
    elif room_of(target) not in FLOORS:
        yield f"_target_ {target} is not of ganinv"
    elif outer and room_of(target) != room:
        yield f"_target_ {target} is not in ganinv.{room}: move the file or the code"
    elif not outer and FLOORS[room_of(target)] > FLOORS[room]:
        yield f"nested _target_ {target} lies above {room}"


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """The constructor's parameters; `**rest` stands for those of the class it is handed to."""
    own = dict(inspect.signature(target).parameters)
    rest = [name for name, p in own.items() if p.kind is inspect.Parameter.VAR_KEYWORD]
    if not rest or not inspect.isclass(target):
        return own
    del own[rest[0]]
    handed = set(re.findall(r"super\(\).__init__\((.*?)\*\*", inspect.getsource(target.__init__)))
    given = set(re.findall(r"(\w+)=", " ".join(handed)))
    owner = next(c for c in target.__mro__ if "__init__" in vars(c))
    after = target.__mro__[target.__mro__.index(owner) + 1 :]
    base = next(c for c in after if "__init__" in vars(c))
    inherited = {k: p for k, p in parameters_of(base).items() if k not in given}
    return inherited | own


ADDED = {"mapping_width"}  # settings with a default, since files written before do not have them


def key_faults(injected: set[str], node: dict[str, Any]) -> Iterator[str]:
    """Keys and injected names are the constructor's parameters; no key has a second default."""
    target, keys = (
        node["_target_"],
        set(node) - SPECIAL - BUILDER.get(room_of(node["_target_"]), set()),
    )
    try:
        parameters = parameters_of(get_object(target))
    except Exception as error:
        yield f"_target_ {target} cannot be found: {error}"
        return
    for key in sorted(keys - set(parameters)):
        yield f"{key}: not a parameter of {target}; delete it or spell it as there"
    if not target.startswith("ganinv."):
        return
    for key in sorted(set(parameters) - keys - injected):
        yield f"{key}: {target} wants it and the file does not give it"
    for key in sorted(keys & injected):
        yield f"{key}: injected at run time (INJECTED in this test), so not for yaml"
    for key in sorted(keys & set(parameters)):
        if parameters[key].default is not inspect.Parameter.empty and key not in ADDED:
            yield f"{key}: {target} has a default too; keep the one in yaml"
        if parameters[key].kind is not inspect.Parameter.KEYWORD_ONLY:
            yield f"{key}: not keyword-only in {target}; put it behind `*`"


def node_faults(group: str, path: tuple[str, ...], node: dict[str, Any]) -> Iterator[str]:
    yield from target_faults(group, path, node["_target_"])
    outer = len(path) == 0
    yield from key_faults(INJECTED.get(group if outer else room_of(node["_target_"]), set()), node)


def line_of(path, word: str) -> int:
    """The first line on which a key stands."""
    lines = path.read_text().splitlines()
    return next((i for i, line in enumerate(lines, 1) if word in line.split("#")[0]), 1)


def test_every_group_is_a_room() -> None:
    known = set(FLOORS) | OVERLAYS | set(ELSEWHERE)
    assert_none(
        f"{at(group)}: no room of that name; groups are {sorted(known)}"
        for group in groups()
        if group.name not in known
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_file_gives_exactly_what_its_constructor_takes(path) -> None:
    config, group = raw(path), path.parent.name
    nodes = list(built(config))
    top = list(config.values()) if group == "loss" else [config]
    whole = [node for node in top if node is not None]
    assert all("_target_" in node for node in whole), f"{at(path)}: a part has no _target_"
    assert_none(
        f"{at(path, line_of(path, fault.split(':')[0]))}: {'.'.join(keys)} {fault}"
        for keys, node in nodes
        for fault in node_faults(group, keys, node)
    )


RUNS = [("train", f"method={name}") for name in names("method")]
RUNS += [("train", f"experiment={name}") for name in names("experiment")]
RUNS += [("train", f"generator={name}") for name in names("generator")]
RUNS += [("train", f"dataset={name}") for name in names("dataset")]
RUNS += [("train", f"trainer={name}") for name in names("trainer")]
RUNS += [
    ("evaluate", f"{group.name}={name}")
    for group in groups()
    if group.name in ("inversion", "editing", "metric")
    for name in names(group.name)
]


@pytest.mark.parametrize(("entry", "choice"), RUNS, ids=lambda value: value)
def test_every_choice_composes_into_what_constructors_take(entry: str, choice: str) -> None:
    config = composed(entry, [choice])
    assert_none(
        f"conf/{choice.replace('=', '/')}.yaml:1: composed, {keys[0]}.{'.'.join(keys[1:])} {fault}"
        for keys, node in built(config)
        if keys[0] in FLOORS or keys[0] in ELSEWHERE
        for fault in node_faults(keys[0], keys[1:], node)
    )


@pytest.mark.parametrize("name", [n for group in sorted(OVERLAYS) for n in names(group)])
def test_an_overlay_builds_no_room_of_its_own(name: str) -> None:
    for group in OVERLAYS:
        path = CONF / group / f"{name}.yaml"
        if path.is_file():
            lines = path.read_text().splitlines()
            assert "# @package _global_" in lines[:2], f"{at(path)}: begin with # @package _global_"
            assert "_target_" not in (yaml.safe_load(path.read_text()) or {}), (
                f"{at(path)}: a _target_"
            )


@pytest.mark.parametrize("path", sorted((CONF / "preset").glob("*/**/*.yaml")), ids=at)
def test_a_preset_changes_values_of_a_choice_that_is_there(path) -> None:
    name, group, choice = path.relative_to(CONF / "preset").with_suffix("").parts[:3]
    assert (CONF / "preset" / f"{name}.yaml").is_file(), f"{at(path)}: no conf/preset/{name}.yaml"
    base = CONF / group / f"{choice}.yaml"
    assert base.is_file(), f"{at(path)}: there is no {at(base)} to change"
    nested = len(path.relative_to(CONF / "preset").parts) > 3  # by the method, of all groups
    own = yaml.safe_load(path.read_text())
    own.pop("defaults", None)
    known = {g.name for g in groups()} if nested else set(raw(base))
    new = {k for k, v in own.items() if not (isinstance(v, dict) and "_target_" in v)}
    assert_none(f"{at(path, line_of(path, key))}: {at(base)} has no {key}" for key in new - known)


def whole_yaml() -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every file of conf/ and what stands in it."""
    for path in sorted(CONF.rglob("*.yaml")):
        yield path, yaml.safe_load(path.read_text()) or {}


def test_a_backbone_stands_in_one_file_and_is_mounted_from_there() -> None:
    inlined = (
        f"{at(path, line_of(path, node['_target_']))}: {node['_target_']} stands in conf/backbone; "
        "mount it with /backbone@KEY in the defaults list"
        for path, own in whole_yaml()
        if path.parent.name != "backbone"
        for _, node in built(own)
        if room_of(node["_target_"]) == "backbone"
    )
    used = {
        name
        for _, own in whole_yaml()
        for group, _, name in mounts(own.get("defaults", []))
        if group == "backbone"
    }
    dead = (f"conf/backbone/{name}.yaml:1: nothing mounts it" for name in names("backbone"))
    assert_none(
        [*inlined, *(line for line in dead if line.split("/")[2].split(".")[0] not in used)]
    )


class Example:
    """What the next test's configs build."""

    def __init__(self, *, num_ws: int, rate: float, depth: int = 3) -> None:
        self.shape = num_ws, rate, depth


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rate": 1, "depht": 1}, "depht: not a parameter"),
        ({}, "rate: .* wants it"),
        ({"rate": 1, "depth": 1}, "depth: .* default too"),
        ({"rate": 1, "num_ws": 1}, "num_ws: injected"),
    ],
)
def test_a_fault_is_seen(monkeypatch, keys, said) -> None:
    monkeypatch.setattr("ganinv.Example", Example, raising=False)
    faults = "\n".join(key_faults({"num_ws"}, {"_target_": "ganinv.Example", **keys}))
    assert re.search(said, faults), faults
