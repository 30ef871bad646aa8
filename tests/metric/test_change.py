"""What else changes at equal change of an attribute: colours, of which every number is known."""

import math

import pytest
import torch
from torch import nn

from ganinv.core.errors import ConfigError
from ganinv.core.interface import Inversion
from ganinv.metric.change import HALVINGS, SCAN, EqualChange, least
from ganinv.metric.metric import Sample
from tests.metric.fakes import Along, Model, colours, given, probe


class L1(nn.Module):
    def forward(self, x_hat, x):
        return (x_hat - x).abs().mean((1, 2, 3))


def metric(tmp_path, *tests, **settings):
    (tmp_path / "p.safetensors").write_bytes(b"")
    fixed = {"column": "c", "edit": "smile", "probe": str(tmp_path / "p.safetensors"),
             "attribute": "red", "amount": 0.5, "strongest": 4.0, "others": None,
             "identity": None}  # fmt: skip
    found = EqualChange(**fixed | settings)
    edit = Along([0.4, 0.1, -0.2])
    found.connect(given({"smile": edit}, probe=probe(*(tests or (0.95, 0.9, 0.92)))))
    return found


def sample(wp, x):
    image = x[:, 0, :, None, None].expand(-1, -1, 8, 8)
    return Sample(image, image, Inversion(wp), model=Model())


X = colours([0.0, 0.1, 0.0], [0.0, 0.3, 0.2], [0.0, 0.5, 0.7])
WP = colours([-0.5, 0.0, 0.0], [0.0, 0.3, 0.1], [0.8, 0.0, 0.0])  # the last one is clamped at 1


def test_others_are_compared_where_red_has_changed_by_a_half(tmp_path):
    """Red moves by 0.4 a unit, so at 1.25; then green has moved by 0.125, and blue by -0.25."""
    found = metric(tmp_path, identity=L1())
    rows = found(sample(WP, X))
    precision = 4 / SCAN / 2**HALVINGS
    strength = rows["strength"]
    assert ((strength[:2] - 1.25).abs() <= precision).all() and strength[2].isnan()
    spread = X[:, 0].std(0)
    changes = [0.125 / float(spread[1]), 0.25 / float(spread[2])]
    values = found.compute(rows)
    assert values["c_reached"] == pytest.approx(2 / 3)
    assert values["c_others"] == pytest.approx(sum(changes) / 2, rel=0.01)
    assert values["c_identity"] == pytest.approx((0.5 + 0.125 + 0.25) / 3, rel=0.01)
    behind = found.details(rows)["c_others"]
    assert behind == pytest.approx({"green": changes[0], "blue": changes[1], "strength": 1.25},
                                   rel=0.01)  # fmt: skip
    ends = found.interval(rows)
    assert set(ends) == set(values) == set(found.higher_is_better)
    assert all(low <= values[name] <= high for name, (low, high) in ends.items())


def test_a_code_that_moves_twice_as_far_is_compared_at_half_the_strength(tmp_path):
    """Equal achieved change: what its steps are worth plays no part."""
    found = metric(tmp_path)
    near = found(sample(WP[:2], X[:2]))
    found.edit = Along([0.8, 0.2, -0.4])
    far = found(sample(WP[:2], X[:2]))
    torch.testing.assert_close(far["strength"] * 2, near["strength"], atol=0.02, rtol=0)
    for name, value in found.compute(near).items():
        assert found.compute(far)[name] == pytest.approx(value, rel=0.02)


def test_less_of_it_is_found_the_other_way(tmp_path):
    found = metric(tmp_path, amount=-0.2, strongest=-2.0)
    assert found(sample(WP[:2], X[:2]))["strength"].tolist() == pytest.approx(
        [-0.5, -0.5], abs=0.01
    )
    found = metric(tmp_path, amount=-0.2)  # in the direction in which red grows
    rows = found(sample(WP[:2], X[:2]))
    values = found.compute(rows)
    assert values["c_reached"] == 0 and math.isnan(values["c_others"])


def test_the_least_strength_is_the_first_crossing():
    """Of a score that rises, falls and rises again: the way there, not the way back."""

    def progress(s):
        return torch.where(s < 2, s, torch.where(s < 3, 4 - 2 * s, s - 1))

    strength, reached = least(progress, 8.0, torch.zeros(1))
    assert reached.tolist() == [True] and strength.tolist() == pytest.approx([1.0], abs=0.01)
    strength, reached = least(lambda s: 0 * s, 8.0, torch.zeros(2))
    assert not reached.any() and strength.tolist() == [8, 8]


def test_weak_probes_are_refused_or_left_out(tmp_path):
    with pytest.raises(
        ConfigError, match="a claim on red, whose probe has 0.890 on the test split"
    ):
        metric(tmp_path, 0.89, 0.95, 0.95)
    with pytest.raises(ConfigError, match="a claim on blue, whose probe has 0.500"):
        metric(tmp_path, 0.95, 0.95, 0.5, others=["green", "blue"])
    with pytest.raises(
        ConfigError, match="a probe of red alone; expected other attributes of at l"
    ):
        metric(tmp_path, 0.95, 0.5, 0.5)
    assert metric(tmp_path, 0.95, 0.95, 0.5).others == ["green"]


def test_settings_that_cannot_be(tmp_path):
    for settings, words in (
        ({"probe": None}, "metric=c without probe or attribute; expected both"),
        ({"amount": 0.0}, "metric.c.amount=0; expected a number but 0"),
        ({"strongest": 0.0}, "metric.c.strongest=0; expected a number but 0"),
        ({"attribute": "smlie"}, "no probe of smlie; expected one of red, green, blue"),
        ({"edit": "age"}, r"c with edit=age, which is not among the edits \(smile\)"),
    ):
        with pytest.raises(ConfigError, match=words):
            metric(tmp_path, **settings)
