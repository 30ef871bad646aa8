"""ReStyle against the paper's loop, written out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ganinv.core.errors import ConfigError
from ganinv.loss.pixel import L2
from ganinv.loss.term import Terms
from ganinv.method.restyle import ReStylePSp
from ganinv.task.image import Image


class Painter(nn.Module):
    """A generator of 8 px whose image is linear in wp."""

    num_ws, w_dim, z_dim, resolution = 2, 3, 3, 8

    def __init__(self):
        super().__init__()
        self.register_buffer("w_avg", torch.tensor([0.1, -0.2, 0.3]))

    def synthesis(self, wp, f=None, noise="const", seeds=None):
        return wp.sum(1)[:, :, None, None].expand(-1, -1, 8, 8).tanh()


class Difference(nn.Module):
    """E: a trained factor of the mean difference of image and reconstruction, for both layers."""

    input_size = (8, 8)

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.3))

    def forward(self, s):
        return (self.rate * (s[:, :3] - s[:, 3:]).mean((2, 3)))[:, None].expand(-1, 2, -1)


def method(refinements):
    return ReStylePSp(
        refinements=refinements,
        generator=Painter(),
        encoder=Difference(),
        loss=Terms({"l2": L2(weight=2.0)}),
        task=Image(),
        optimizer=torch.optim.SGD,
        noise="const",
        seed=0,
        micro_batches=1,
        clip_norm=None,
        max_nonfinite=3,
    )


def test_passes_are_the_papers_loop_and_their_gradients_add_up():
    restyle, x = method(3), torch.rand(4, 3, 8, 8) * 2 - 1
    rate, total = 0.3, 0.0
    wp = restyle.G.w_avg.expand(4, 2, 3)
    y = restyle.G.synthesis(wp)
    for _ in range(3):
        trained = torch.tensor(rate, requires_grad=True)
        step = trained * (x - y).mean((2, 3))[:, None]
        y_hat = restyle.G.synthesis(wp + step)
        loss = 2 * (y_hat - x).square().mean()
        (slope,) = torch.autograd.grad(loss, trained)
        total += slope
        wp, y = (wp + step).detach(), y_hat.detach()
    restyle.manual_backward = lambda loss: loss.backward()
    restyle.move = lambda player: None
    restyle.trainer = SimpleNamespace(strategy=object(), world_size=1)
    refined = restyle.refine(x, x, torch.arange(4))
    torch.testing.assert_close(restyle.E.rate.grad, total)
    torch.testing.assert_close(refined, wp)
    with torch.no_grad():
        torch.testing.assert_close(restyle.encode(x), wp)


def test_more_passes_come_closer():
    x = torch.rand(4, 3, 8, 8).mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)
    far = [(method(t).reconstruct(x) - x).square().mean().item() for t in (1, 3, 6)]
    assert far[0] > 2 * far[1] > 4 * far[2]


def test_refuses_no_pass():
    with pytest.raises(ConfigError, match=r"refinements=0; expected at least 1"):
        method(0)
