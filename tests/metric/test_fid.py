"""KID by its sums, the FID of intervals against torchmetrics', and edit-FID with its grid."""

import math

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Inversion
from ganinv.metric.bootstrap import around
from ganinv.metric.edit_fid import EditFID
from ganinv.metric.fid import FID, KID, fid_of, frechet
from ganinv.metric.metric import Sample
from tests.metric.fakes import Along, Colour, Model, given


def features(count, width, seed, shift=0.0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_kid_is_the_unbiased_sum_of_the_paper():
    h, g = features(7, 4, 0).double(), features(7, 4, 1, 0.3).double()

    def k(a, b):
        return (float(a @ b) / 4 + 1) ** 3

    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    expected = sum(k(h[i], h[j]) + k(g[i], g[j]) for i, j in pairs) / 42
    expected -= 2 * sum(k(a, b) for a in h for b in g) / 49
    kid = KID(column="kid", backbone=Colour())
    rows = {"features_x": h, "features_x_hat": g}
    assert kid.compute(rows)["kid"] == pytest.approx(expected)
    one = {name: row[:1] for name, row in rows.items()}
    assert math.isnan(kid.compute(one)["kid"]) and math.isnan(kid.interval(one)["kid"][0])


def test_kid_of_one_distribution_is_0_on_average_and_its_interval_holds_0():
    kid, values, holds = KID(column="kid", backbone=Colour()), [], 0
    for seed in range(40):
        sets = {"features_x": features(60, 3, seed), "features_x_hat": features(60, 3, seed + 100)}
        values.append(kid.compute(sets)["kid"])
        low, high = kid.interval(sets)["kid"] if seed < 20 else (0, 0)
        holds += seed < 20 and low <= 0 <= high
    values = torch.tensor(values)
    assert abs(values.mean()) < 3 * values.std() / 40**0.5 and values.min() < 0 < values.max()
    assert holds >= 16


@pytest.mark.parametrize(("counts", "width"), [((40, 30), 5), ((9, 12), 20), ((40, 8), 12)])
def test_the_fast_fid_is_torchmetrics(counts, width):
    """More images than features, fewer, and one of each."""
    real, fake = features(counts[0], width, 0), features(counts[1], width, 1, 0.5) * 1.3
    value = frechet(real.double(), fake.double())
    assert value == pytest.approx(fid_of(real, fake), rel=1e-3)
    assert frechet(real.double(), real.double()) == pytest.approx(0, abs=1e-9)
    assert math.isnan(fid_of(real[:1], fake)) and math.isnan(frechet(real[:1], fake))


def test_an_interval_around_a_mean_is_that_of_the_normal_distribution():
    row = features(200, 1, 0)[:, 0].double()
    low, high = around(3.0, lambda places: float(row[places].mean()), [200], draws=400)
    half = 1.96 * float(row.std()) / 200**0.5
    assert high - 3 == pytest.approx(half, rel=0.15) and 3 - low == pytest.approx(half, rel=0.15)
    both = around(0.0, lambda a, b: float(row[a].mean() - row[b].mean()), [200, 200], draws=400)
    assert both[1] == pytest.approx(2**0.5 * half, rel=0.15)  # drawn independently


def test_the_interval_of_fid_is_around_it_though_resampled_sets_read_higher():
    fid = FID(column="fid", backbone=Colour())
    rows = {"features_x": features(50, 6, 0), "features_x_hat": features(50, 6, 1, 0.4)}
    value, (low, high) = fid.compute(rows)["fid"], fid.interval(rows)["fid"]
    assert low < value < high and (low + high) / 2 == pytest.approx(value)
    other = {"features_x": features(50, 6, 2), "features_x_hat": features(50, 6, 3, 0.4)}
    assert abs(fid.compute(other)["fid"] - value) < 2 * (high - low)


# ------------------------------------------------------------------ edited images


def edit_fid(**settings):
    fixed = {"column": "edit_fid", "backbone": Colour(), "edit": "smile", "attribute": "smile",
             "adds": True}  # fmt: skip
    found = EditFID(**fixed | settings)
    found.connect(given({"smile": Along([0.5, 0.0, 0.0], (-1.0, 0.0, 1.0))}))
    return found


def faces(count=60):
    """Of the attribute: redder by a half; codes that render the images themselves."""
    wp = 0.1 * features(count, 3, 0)[:, None].repeat(1, 2, 1)
    records = [{"smile": i % 3 == 0, "age": 1.0} for i in range(count)]
    wp[::3, :, 0] += 0.5
    image = wp[:, 0, :, None, None].expand(-1, -1, 4, 4)
    return Sample(image, image, Inversion(wp), records, Model())


def test_edit_fid_is_lowest_where_the_edit_gives_the_attribute():
    """Images with it against edited ones without: the grid, its lowest, and both counts."""
    metric, sample = edit_fid(), faces()
    rows = metric(sample)
    x, smiling = sample.x, torch.tensor([record["smile"] for record in sample.attributes])
    real = Colour().features(x)[smiling]
    grid = {}
    for strength in (-1.0, 0.0, 1.0):
        moved = sample.found.wp[~smiling, 0] + strength * torch.tensor([0.5, 0.0, 0.0])
        grid[f"{strength:+g}"] = fid_of(real, to_unit(to_uint8(moved)))
    told = metric.details(rows)["edit_fid"]
    assert told == pytest.approx({**grid, "images of A": 20, "of B": 40}, rel=1e-4)
    value = metric.compute(rows)["edit_fid"]
    assert value == pytest.approx(grid["+1"], rel=1e-4) and value < grid["+0"] < grid["-1"]
    low, high = metric.interval(rows)["edit_fid"]
    assert low < value < high
    parts = [
        metric(
            Sample(x[i:j], x[i:j], Inversion(sample.found.wp[i:j]), sample.attributes[i:j], Model())
        )
        for i, j in ((0, 25), (25, 60))
    ]
    joined = {name: torch.cat([part[name] for part in parts]) for name in rows}
    assert metric.compute(joined)["edit_fid"] == pytest.approx(value, rel=1e-6)


def test_taking_away_compares_with_those_that_have_it_not():
    """The other way round: strength -1 of those who smile against those who do not."""
    metric = edit_fid(adds=False)
    rows = metric(faces())
    told = metric.details(rows)["edit_fid"]
    assert told["images of A"] == 40 and metric.compute(rows)["edit_fid"] == told["-1"]
    assert metric.protocol["edit_fid"].startswith(
        "smile taken away along smile, lowest of the grid"
    )


def test_edit_fid_needs_two_kinds_of_images():
    metric, sample = edit_fid(), faces(6)
    sample.attributes = [{"smile": True, "age": 1.0}] * 6
    rows = metric(sample)
    assert math.isnan(metric.compute(rows)["edit_fid"])
    assert all(math.isnan(end) for end in metric.interval(rows)["edit_fid"])
    with pytest.raises(
        ConfigError, match="edit_fid.attribute=age, a number; expected true or fals"
    ):
        edit_fid(attribute="age")(sample)
    with pytest.raises(
        ConfigError, match="edit_fid without an attribute; expected one of the data"
    ):
        edit_fid(attribute=None)
