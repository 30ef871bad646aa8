"""What is read from a constructor's text is what Python says of it once it is imported."""

from __future__ import annotations

import inspect

import pytest
import yaml
from hydra.utils import get_object

from ganinv.config.source import ancestors, has_method, parameters_of_target
from ganinv.config.values import fault_of, parameters_of
from tests.house.tree import CONF

VALUES = (
    None, True, 0, -1, 7, 1.5, "x", "const", "random", [], [1], [1, 2], [0.5, 0.9], ["a"], [None],
    [[1, 2]], {}, {"a": 1}, {"a": "b"}, {"_target_": "x"},
)  # fmt: skip


def targets(node) -> set[str]:
    if isinstance(node, list):
        return {found for item in node for found in targets(item)}
    if not isinstance(node, dict):
        return set()
    own = {node["_target_"]} if "_target_" in node else set()
    return own | {found for item in node.values() for found in targets(item)}


TARGETS = sorted(
    {t for path in CONF.rglob("*.yaml") for t in targets(yaml.safe_load(path.read_text()))}
)


def test_every_constructor_of_conf_is_read_as_it_is() -> None:
    assert len(TARGETS) > 60 and "torch.optim.Adam" in TARGETS
    for target in TARGETS:
        read, known = parameters_of_target(target), parameters_of(get_object(target))
        assert list(read) == list(known), target
        for key, parameter in known.items():
            assert read[key].required == parameter.required, (target, key)
            for value in VALUES:
                words = fault_of(key, value, parameter.annotation)
                assert fault_of(key, value, read[key].annotation) == words, (target, key, value)


def test_every_class_of_conf_has_the_ancestors_it_has() -> None:
    for target in TARGETS:
        if inspect.isclass(kind := get_object(target)) and target.startswith("ganinv."):
            names = [f"{c.__module__}.{c.__qualname__}" for c in kind.__mro__]
            assert ancestors(target) == [n for n in names if n.startswith("ganinv.")], target
            assert has_method(target, "start_codes") == hasattr(kind, "start_codes")


@pytest.mark.parametrize(
    "name", ["ganinv.gone.Thing", "ganinv.encoder.psp.Gone", "ganinv.encoder", "torch.optim.Gone"]
)
def test_what_is_not_there_is_said(name) -> None:
    with pytest.raises((ImportError, AttributeError)):
        parameters_of_target(name)


def test_a_class_of_the_users_own_is_imported(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_part.py").write_text(
        "class Part:\n    def __init__(self, *, side: int): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    known = parameters_of_target("own_part.Part")["side"]
    assert known.annotation is int and known.required
    assert ancestors("own_part.Part") == ["own_part.Part", "builtins.object"]
