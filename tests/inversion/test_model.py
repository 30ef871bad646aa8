"""One model: what training sees is what `ganinv invert`, `ganinv.load` and every export see."""

import pytest
import torch

from ganinv.core.interface import Inversion, Target
from ganinv.interop.graph import graphs
from ganinv.inversion.encode import Encode
from ganinv.loss.pixel import L2
from ganinv.loss.term import Terms
from ganinv.method.restyle import ReStyleE4E, ReStylePSp
from tests.interop.models import model_of, stylegan2, tiny

SHAPE = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1, "channel_base": 512, "channel_max": 4}


@pytest.fixture(scope="module")
def wide():
    """ReStyle for cars: 192 x 256 px of a 512-px generator."""
    torch.manual_seed(0)
    generator = stylegan2(512, shape=SHAPE)
    model = model_of("ReStyleResNetEncoder", generator, input_size=[192, 256])
    model.refinements = 2
    return model


def by_hand(model, s):
    """Released cars: the 512-px image averaged to 256 px, lines 32 to 223 of it."""
    wp = model.G.w_avg.expand(len(s), model.num_ws, -1)
    for _ in range(model.refinements):
        square = model.G.synthesis(wp, noise="const")
        assert square.shape[-2:] == (512, 512)
        y = square.unflatten(-1, (256, 2)).mean(-1).unflatten(-2, (256, 2)).mean(-2)[:, :, 32:224]
        wp = wp + model.E(torch.cat([s, y], 1))
    return wp


def training(model):
    return ReStylePSp(
        refinements=model.refinements,
        generator=model.G,
        encoder=model.E,
        loss=Terms({"l2": L2(weight=1.0)}),
        task=model.task,
        optimizer=torch.optim.SGD,
        noise="const",
        seed=0,
        micro_batches=1,
        clip_norm=None,
        max_nonfinite=3,
    ).eval()


@torch.no_grad()
def test_a_wide_restyle_reads_the_middle_and_not_a_squashed_image_everywhere(wide):
    s = torch.rand(2, 3, 192, 256) * 2 - 1
    expected = by_hand(wide, s)
    squashed = torch.nn.functional.adaptive_avg_pool2d(wide.render(expected), (192, 256))
    assert (squashed - wide.render(expected, (192, 256))).abs().mean() > 0.01  # the two differ
    close = {"rtol": 1e-3, "atol": 1e-3}  # codes of the wrong image differ by far more
    torch.testing.assert_close(wide.encode(s), expected, **close)
    method = training(wide)
    torch.testing.assert_close(method.encode(s), expected, **close)
    *_, (last, y) = method.model.passes(s)
    torch.testing.assert_close(last, expected, **close)
    torch.testing.assert_close(y, wide.render(expected, (192, 256)), **close)


@pytest.mark.nightly
def test_so_does_its_graph(wide):
    s = torch.rand(2, 3, 192, 256) * 2 - 1
    encoder = next(graph for graph in graphs(wide) if graph.name == "encoder")
    found = encoder.program().module()(s)
    torch.testing.assert_close(found, by_hand(wide, s), rtol=1e-3, atol=1e-3)


def test_render_averages_down_and_takes_the_middle(wide):
    wp = torch.randn(1, wide.num_ws, wide.w_dim)
    whole = wide.render(wp)
    assert whole.shape == (1, 3, 512, 512)
    assert torch.equal(whole, wide.render(Inversion(wp), (512, 512)))
    down = torch.nn.functional.avg_pool2d(whole, 4)
    torch.testing.assert_close(wide.render(wp, (128, 64)), down[..., 32:96])
    torch.testing.assert_close(wide.render(wp, (96, 128)), down[..., 16:112, :])


def test_gradients_stay_within_a_pass_of_training_and_run_through_encode(wide):
    s = torch.rand(1, 3, 192, 256) * 2 - 1
    s.requires_grad_(True)
    first, second = (wp for wp, _ in wide.passes(s))
    assert torch.autograd.grad(second.sum(), first, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(wide.encode(s).sum(), s)[0].abs().sum() > 0


def test_the_stage_of_e4e_reaches_the_encoder():
    model = tiny()
    s = torch.rand(2, 3, 64, 64) * 2 - 1
    closed = model.encode(s, stage=0)
    torch.testing.assert_close(closed, closed[:, :1].expand_as(closed))
    torch.testing.assert_close(closed, model.G.w_avg + model.E(s, stage=0))
    assert (model.encode(s)[:, 1:] - closed[:, 1:]).abs().max() > 0
    assert ReStyleE4E.encoder_arguments is not ReStylePSp.encoder_arguments


def test_encode_is_an_inversion_method():
    model = tiny()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    found = Encode(model=model)(Target(x=x, s=x, key=["a", "b"], seeds=[1, 2]))
    torch.testing.assert_close(found.wp, model.encode(x))
    assert (found.f, found.noise, found.weights) == (None, None, None)
    wp, x_hat = model(x)
    assert torch.equal(wp, found.wp) and torch.equal(x_hat, model.render(found))


def test_an_image_that_the_encoder_cannot_read():
    model = tiny("WEncoder", input_nc=1)
    with pytest.raises(ValueError, match=r"shape \(1, 3, 64, 64\); expected \[B,1,64,64\]"):
        model.encode(torch.zeros(1, 3, 64, 64))
