"""What all encoder methods share: sizes of images."""

import torch

from tests.method.test_restyle import method


def test_a_wide_size_is_the_middle_of_the_square_averaged_down(monkeypatch):
    """512 -> 256, rows 32 to 223, here at a sixteenth: 32 -> 16, rows 2 to 13."""
    restyle = method(1)
    square = torch.rand(2, 3, 32, 32)
    monkeypatch.setattr(restyle.G, "synthesis", lambda wp, noise, seeds: square)
    wp = torch.zeros(2, 2, 3)
    down = square.unflatten(-1, (16, 2)).mean(-1).unflatten(-2, (16, 2)).mean(-2)
    wide = restyle.model.render(wp, (12, 16))
    torch.testing.assert_close(wide, down[:, :, 2:14])
    torch.testing.assert_close(restyle.model.render(wp, (16, 16)), down)
    assert torch.equal(restyle.model.render(wp, (32, 32)), square)
