"""LEC by hand, and its batches as the released code takes them."""

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.core.interface import Inversion
from ganinv.metric.bootstrap import trimmed_mean
from ganinv.metric.consistency import LEC
from ganinv.metric.metric import Sample
from tests.metric.fakes import Along, Model, colours, given


def lec(**settings):
    found = LEC(**{"edit": "smile", "strength": 3.0, "images": 2} | settings)
    found.connect(given({"smile": Along([0.0, 0.25, 0.0])}))
    return found


def test_an_encoder_that_halves_every_colour():
    """w' = (w + 3 v) / 2, so that w - (w' - 3 v) = (w + 3 v) / 2, in both layers."""
    wp = colours([0.2, 0.25, 0.0], [0.0, -0.75, 0.0])
    seen = []

    def invert(image):
        seen.append(image)
        return Inversion(image.mean((2, 3))[:, None].repeat(1, 2, 1) / 2)

    image = torch.zeros(2, 3, 4, 4)
    metric = lec()
    rows = metric(Sample(image, image, Inversion(wp), model=Model(), invert=invert))
    assert seen[0].shape == (2, 3, 4, 4)  # of the size that the encoder reads
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([0.2, 1.0, 0.0]))
    expected = [2**0.5 * (0.1**2 + 0.5**2) ** 0.5, 0.0]
    assert rows["lec"].tolist() == pytest.approx(expected, abs=1e-6)
    assert metric.compute(rows)["lec"] == pytest.approx(expected[0] / 2, abs=1e-6)


def test_batches_are_left_out_at_both_ends():
    """Seven images in batches of two: means 2, 6 and 10, of which the percentiles 1 and 99 are 2.08
    and 9.92; the last image is in no batch."""
    metric = lec()
    rows = {"lec": torch.tensor([1.0, 3, 5, 7, 9, 11, 100]).double()}
    assert metric.compute(rows) == {"lec": pytest.approx(136 / 7), "lec_batches": 6}
    low, high = metric.interval(rows)["lec_batches"]
    assert 2 <= low <= 6 <= high <= 10
    low, high = metric.interval(rows)["lec"]
    assert low < 136 / 7 < high
    few = {"lec": rows["lec"][:1]}
    assert torch.tensor(metric.compute(few)["lec_batches"]).isnan()
    assert set(metric.interval(few)) == {"lec"}
    halves = {name: torch.cat([row[:3], row[3:]]) for name, row in rows.items()}
    assert metric.compute(halves) == metric.compute(rows)  # however the evaluation's batches lay
    assert "batches of 2" in metric.protocol["lec_batches"]


def test_trimming_keeps_both_percentiles():
    row = torch.cat([torch.arange(100.0), torch.tensor([1e6])])
    assert trimmed_mean(row, ("lower", "higher")) == 50  # 1 to 99 of 0 to 99 and a million
    assert trimmed_mean(torch.tensor([3.0]), ("linear", "linear")) == 3


def test_what_cannot_be_is_refused():
    moving = Along([0.0, 1.0, 0.0])
    moving.needs_f = True
    metric = LEC(edit="smile", strength=3.0, images=8)
    for edits, words in (
        (
            {"age": moving},
            r"lec with edit=smile, which is not among the edits \(age\); expected an",
        ),
        ({"smile": moving}, "lec with edit=smile, which moves f; expected an edit of codes"),
    ):
        with pytest.raises(ConfigError, match=words):
            metric.connect(given(edits))
    with pytest.raises(ConfigError, match="an encoder that does not read images; expected one of"):
        metric.connect(given({}, encodes_images=False))
