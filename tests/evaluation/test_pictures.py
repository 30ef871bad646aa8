"""Which pictures a report keeps while batches come in any order, from any process."""

import math
import random

import pytest
import torch

from ganinv.evaluation.pictures import WORST, Pictures
from ganinv.evaluation.result import Picture


def picture(number):
    image = torch.full((3, 2, 2), number, dtype=torch.uint8)
    return Picture(f"k{number}", image, image + 1, {"mse": float(number)})


@pytest.mark.parametrize("seed", range(3))
def test_the_worst_are_the_same_in_any_order_and_no_more_are_kept(tmp_path, seed):
    scores = {i: float(i % 7) for i in range(40)} | {3: math.nan, 11: math.inf, 12: -1.0}
    order = list(scores)
    random.Random(seed).shuffle(order)
    order += order[:5]  # a batch that was killed before its part was written comes again
    kept = Pictures(tmp_path, first=3)
    for number in order:
        kept.keep(number, scores[number], picture(number))
        assert len(list(tmp_path.glob("worst_*"))) <= WORST
    first, worst = kept.read()
    assert [p.key for p in first] == ["k0", "k1", "k2"]
    assert [p.key for p in worst] == ["k3", "k11", "k6", "k13", "k20", "k27", "k34", "k5"]
    assert torch.equal(worst[0].image, picture(3).image) and worst[0].values == {"mse": 3.0}


def test_nothing_is_worst_without_a_score(tmp_path):
    kept = Pictures(tmp_path, first=2)
    for number in range(4):
        kept.keep(number, None, picture(number))
    first, worst = kept.read()
    assert [p.key for p in first] == ["k0", "k1"] and worst == []
