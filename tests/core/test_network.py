"""A network is built for a file's tensors only if they fill it."""

import pytest
import torch
from torch import nn

from ganinv.core.errors import WeightsError
from ganinv.core.network import filled


class Two(nn.Module):
    """Two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = 1 / width
        self.a, self.b = nn.Linear(width, 2), nn.Linear(2, width)


def test_it_holds_the_tensors():
    state = {key: value.half() for key, value in Two(3).state_dict().items()}
    network = filled(Two, {"width": 3}, state, "a file")
    for key, value in network.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, state[key].float())


def test_what_does_not_fit_is_refused():
    state = Two(3).state_dict()
    for changes, words in (
        ({"a.bias": None}, r"a file with no a.bias; expected the 4 tensors of Two"),
        ({"c": torch.zeros(1)}, "an unknown c"),
        ({"a.bias": torch.zeros(3)}, r"a.bias of \[3\] instead of \[2\]"),
    ):
        given = {k: v for k, v in {**state, **changes}.items() if v is not None}
        with pytest.raises(WeightsError, match=words):
            filled(Two, {"width": 3}, given, "a file")
    with pytest.raises(
        WeightsError, match=r"make no Two .width=1099511627776.; expected those of a"
    ):
        filled(Two, {"width": 1 << 40}, state, "a file")  # no memory is taken for it
    with pytest.raises(WeightsError, match=r"a.weight of \[2, 3\] instead of \[2, 1000\]"):
        filled(Two, {"width": 1000}, state, "a file")
    with pytest.raises(
        WeightsError, match="settings that make no Two .ZeroDivisionError: division by zero.*To fix"
    ):
        filled(Two, {"width": 0}, state, "a file")
