"""Style mixing by hand."""

import pytest
import torch

from ganinv.editing.mix import mix


def test_rows_are_replaced_or_moved() -> None:
    wp, other = torch.zeros(2, 4, 3), torch.ones(2, 4, 3)
    assert mix(wp, other, [1, 3]).sum(2).tolist() == [[0, 3, 0, 3]] * 2
    assert mix(wp, other[:, 0], [0], alpha=0.25)[0, 0].tolist() == [0.25] * 3
    assert mix(wp, other, []).equal(wp) and wp.sum() == 0
    with pytest.raises(ValueError, match=r"layers \[4\] of a wp of 4 layers"):
        mix(wp, other, [2, 4])
