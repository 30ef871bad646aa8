"""Between two inversions, by hand."""

import math

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.core.interface import Inversion
from ganinv.core.latent import slerp
from ganinv.editing.interpolate import interpolate
from ganinv.editing.mix import crossover


def test_lerp_of_all_that_was_found():
    first = Inversion(torch.zeros(1, 2, 3), f=torch.zeros(1, 1, 2, 2),
                      noise={"n": torch.zeros(1, 1, 2, 2)},
                      weights={"a": torch.ones(1, 2)})  # fmt: skip
    second = Inversion(torch.ones(1, 2, 3), f=torch.full((1, 1, 2, 2), 4.0),
                       noise={"n": torch.ones(1, 1, 2, 2)},
                       weights={"b": torch.ones(1, 3)})  # fmt: skip
    found = interpolate(first, second, 0.25)
    assert found.wp.unique().tolist() == [0.25] and found.f.unique().tolist() == [1]
    assert found.noise["n"].unique().tolist() == [0.25]
    assert found.weights["a"].tolist() == [[0.75] * 2]  # unchanged in the other
    assert found.weights["b"].tolist() == [[0.25] * 3]
    ends = interpolate(first, second, 0), interpolate(first, second, 1)
    assert ends[0].wp.equal(first.wp) and ends[1].f.equal(second.f)


def test_inversions_that_do_not_fit_are_refused():
    plain = Inversion(torch.zeros(1, 2, 3))
    for other, words in (
        (Inversion(torch.zeros(1, 2, 4)), r"codes of \[1, 2, 3\] and of \[1, 2, 4\]; expected two"),
        (Inversion(plain.wp, f=torch.ones(1, 1, 2, 2)), "one inversion with f and one without"),
        (Inversion(plain.wp, noise={"n": torch.ones(1, 1, 2, 2)}), "different noise maps"),
    ):
        with pytest.raises(ConfigError, match=words):
            interpolate(plain, other, 0.5)


def test_slerp_stays_on_the_arc():
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    half = slerp(first, second, 0.5)
    torch.testing.assert_close(half, torch.tensor([[3.0, 3.0]]) * math.sqrt(0.5))
    torch.testing.assert_close(
        slerp(first, second, 1 / 3), 8 / 3 * torch.tensor([[math.sqrt(0.75), 0.5]])
    )
    torch.testing.assert_close(slerp(first, second, 0), first)
    torch.testing.assert_close(slerp(first, second, 1), second, atol=1e-6, rtol=0)
    torch.testing.assert_close(slerp(first, 3 * first, 0.5), 2 * first)
    assert torch.isfinite(slerp(first, -first, 0.3)).all()


def test_crossover_exchanges_layers():
    first, second = torch.zeros(1, 3, 2), torch.ones(1, 3, 2)
    children = crossover(first, second, [0, 2])
    assert children[0].mean(2).tolist() == [[1, 0, 1]] and children[1].mean(2).tolist() == [
        [0, 1, 0]
    ]
