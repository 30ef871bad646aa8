"""Precision and recall of codes' semantics by hand and against scikit-learn."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score

from ganinv.core.direction import Direction, write_directions
from ganinv.core.errors import ConfigError
from ganinv.core.interface import Inversion
from ganinv.metric.bootstrap import interval
from ganinv.metric.metric import Sample
from ganinv.metric.semantics import Semantics, average_precision


def test_the_area_by_hand_and_as_scikit_learn_has_it():
    score, label = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert average_precision(score, label) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    for seed in range(5):
        torch.manual_seed(seed)
        score = torch.randint(8, (40,)).double()  # with many equal ones
        label = (torch.rand(40) < 0.4).double()
        expected = average_precision_score(label.numpy(), score.numpy())
        assert average_precision(score, label) == pytest.approx(expected)
    assert math.isnan(average_precision(score, torch.ones(40)))


def test_the_interval_is_that_of_the_mean():
    rows = torch.randn(400).double()
    low, high = interval(lambda x: float(x.mean()), rows)
    half = 1.96 * float(rows.std()) / 20
    mean = float(rows.mean())
    assert low == pytest.approx(mean - half, abs=0.15 * half)
    assert high == pytest.approx(mean + half, abs=0.15 * half)
    assert interval(lambda x: float(x.mean()), rows) == (low, high)  # the same draws
    assert all(math.isnan(v) for v in interval(lambda x: math.nan, rows))


def metric(tmp_path, direction, **more):
    write_directions(tmp_path / "d.safetensors", [direction])
    settings = {"column": "s", "boundary": str(tmp_path / "d.safetensors"), "attribute": "smile"}
    return Semantics(**settings | more)


def test_a_set_of_three_images(tmp_path):
    """Distances (w - 1) along the first axis, averaged over layers."""
    one = Direction("a", torch.tensor([[1.0, 0.0]]), None, 2.0, torch.tensor([-1.0]))
    found = metric(tmp_path, one)
    wp = torch.tensor([[[2.0, 5.0], [4.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]], [[9.0, 0], [9.0, 0]]])
    records = [{"smile": True, "age": 3}, {"smile": False, "age": 4}, {"smile": True, "age": 3}]
    image = torch.zeros(3, 3, 2, 2)
    rows = found(Sample(image, image, Inversion(wp), attributes=records))
    assert rows["score"].tolist() == [2, -1, 8] and rows["label"].tolist() == [1, 0, 1]
    low, high = found.interval(rows)["s"]
    assert found.compute(rows) == {"s": 1} and low <= 1 == high
    assert all(math.isnan(v) for v in found.compute({k: v[:1] for k, v in rows.items()}).values())
    assert "average precision of smile by d.safetensors" in found.protocol["s"]
    for attribute, words in (
        ("smlie", "no attribute smlie; expected one of smile, age"),
        ("age", "attribute=age, a number; expected true or false"),
    ):
        found.attribute = attribute
        with pytest.raises(ConfigError, match=words):
            found(Sample(image, image, Inversion(wp), attributes=records))


def test_what_is_no_boundary_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="without boundary or attribute; expected both"):
        Semantics(column="s", boundary=None, attribute="smile")
    with pytest.raises(ConfigError, match="direction a, which has no intercept; expected a bou"):
        metric(tmp_path, Direction("a", torch.ones(1, 2)))
    weak = Direction("a", torch.ones(1, 2), None, 1.0, torch.zeros(1), None, {"probe_test": 0.853})
    with pytest.raises(ConfigError, match="a claim on smile, whose probe has 0.853 on the test sp"):
        metric(tmp_path, weak)
    metric(tmp_path, replace(weak, fitted={"probe_test": 0.9}))
    metric(tmp_path, replace(weak, layers=(5,), fitted={}))  # evaluation compares layers with G's
