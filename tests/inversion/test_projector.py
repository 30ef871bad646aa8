"""The projector's schedule against its formula, its noise regulariser and statistics by hand."""

import math

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.inversion import noise
from ganinv.inversion.encode import Encode
from ganinv.inversion.statistics import Whitening, measure, moments_of, unfold, w_std
from tests.inversion import tiny
from tests.inversion.methods import image2stylegan, projector


def test_the_schedule_is_the_released_one():
    """lr 0.1, 1000 steps: values of the released formula worked out by hand at some t, and by the
    formula at all others."""
    method = projector(tiny.model(), steps=1000, lr=0.1, w_noise=0.05)
    spread = method.w_std * 0.05
    by_hand = {0: 0.0, 25: 0.05, 50: 0.1, 400: 0.1, 750: 0.1, 875: 0.05, 1000: 0.0}
    for step, rate in by_hand.items():
        assert method.rate(step) == pytest.approx(rate, abs=1e-12), step
    noise_by_hand = {0: 1.0, 375: 0.25, 600: 0.04, 750: 0.0, 1000: 0.0}
    for step, factor in noise_by_hand.items():
        assert method.noise_on_w(step) == pytest.approx(spread * factor, abs=1e-12), step
    for step in range(0, 1001, 7):
        t = step / 1000
        ramp = 0.5 - 0.5 * math.cos(min(1.0, (1.0 - t) / 0.25) * math.pi)
        assert method.rate(step) == pytest.approx(0.1 * ramp * min(1.0, t / 0.05), abs=1e-12)
        assert method.noise_on_w(step) == pytest.approx(spread * max(0, 1 - t / 0.75) ** 2)


def test_the_rate_reaches_adam():
    """Step 0 has rate 0: after it nothing has moved but the noise's normalisation."""
    model = tiny.model()
    found = projector(model, steps=1)(tiny.target(model, "a"))
    mean = measure(model.G, 200)["mean_w"]
    torch.testing.assert_close(found.wp[0], mean.expand(model.num_ws, -1), rtol=0, atol=1e-12)


def test_it_may_start_at_another_method_s_code():
    """At the mean of its layers; w_avg, as released, is that of the samples, not the file's. Step 0
    has rate 0, so one step shows the start. Noise maps are its own in either case."""
    model = tiny.model()
    target = tiny.target(model, "ab")
    code = model.encode(target.s)
    assert (code[:, 0] - code[:, 1]).abs().max() > 0.1  # the mean is one of different layers
    starts = {"of a method": image2stylegan(model, start=Encode(model=model), steps=1, lr=1e-9),
              "of E": Encode(model=model)}  # fmt: skip
    for start in starts.values():
        found = projector(model, start=start, steps=1)(target)
        expected = code.mean(1, keepdim=True).expand_as(found.wp)
        torch.testing.assert_close(found.wp, expected, rtol=0, atol=1e-8)
    white = projector(model, steps=1)(target).noise
    assert all(torch.equal(value, white[name]) for name, value in found.noise.items())
    before = projector(model, start=projector(model, steps=1), steps=1)(target)
    torch.testing.assert_close(before.wp, projector(model, steps=1)(target).wp)


def test_the_regulariser_by_hand():
    """Columns of +1 and -1: neighbours to the right cancel (-1), below agree (1); halved they are
    0. A map of the smallest size has one scale."""
    columns = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert noise.regulariser({"n": columns}).tolist() == [2.0]
    two = torch.cat([columns, torch.ones(1, 1, 16, 16)])
    assert noise.regulariser({"n": two}).tolist() == [2.0, 4.0]  # per image; ones at both scales
    assert noise.regulariser({"n": torch.ones(1, 1, 4, 4), "m": columns}).tolist() == [4.0]


def test_noise_is_normalised_image_by_image():
    maps = {"n": torch.randn(2, 1, 8, 8) * torch.tensor([1.0, 50.0])[:, None, None, None] + 3}
    alone = {"n": maps["n"][1:].clone()}
    noise.normalise(maps)
    noise.normalise(alone)
    assert torch.equal(maps["n"][1:], alone["n"])
    assert maps["n"].mean((1, 2, 3)).abs().max() < 1e-6
    assert maps["n"].square().mean((1, 2, 3)).tolist() == pytest.approx([1, 1], rel=1e-5)


def test_what_was_found_is_rendered_with_its_noise():
    model = tiny.model()
    target = tiny.target(model, "ab")
    found = projector(model)(target)
    assert set(found.noise) == set(noise.buffers(model.G)) and len(found.noise) == 5
    plain = model.render(found.wp)
    assert (model.render(found) - plain).abs().amax((1, 2, 3)).min() > 1e-3
    assert projector(tiny.model("stylegan3"))(target).noise is None


def test_statistics_are_those_of_samples():
    model = tiny.model()
    moments = measure(model.G, 4000)
    w = model.G.mapping(torch.randn(20_000, tiny.WIDTH).double())
    torch.testing.assert_close(moments["mean_w"], w.mean(0), rtol=0, atol=0.1)
    spread = (w - w.mean(0)).square().sum(1).mean().sqrt()
    assert w_std(moments) == pytest.approx(float(spread), rel=0.05)
    p = Whitening.of(moments, floor=1e-5)(w)
    assert p.mean(0).abs().max() < 0.1 and (p.var(0) - 1).abs().max() < 0.2
    covariance = p.t().cov()
    assert (covariance - covariance.diag().diag()).abs().max() < 0.1
    assert Whitening.of(moments, 1e-5)(model.G.w_avg).abs().max() > 1e-3  # of w_avg it is not 0
    torch.testing.assert_close(torch.nn.functional.leaky_relu(unfold(w), 0.2), w)


def test_a_direction_without_variance_is_bounded_by_the_floor():
    moments = {"mean_p": torch.zeros(2).double(), "covariance_p": torch.diag(
        torch.tensor([4.0, 1e-12]).double())}  # fmt: skip
    p = Whitening.of(moments, floor=1e-4)(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    assert sorted(p.abs().amax(1).tolist()) == pytest.approx([1.0, 2 / (4 * 1e-4) ** 0.5])
    with pytest.raises(ConfigError, match="floor=0 for the eigenvalues of P_N; expected above 0"):
        Whitening.of(moments, floor=0)


def test_moments_are_kept_per_file_of_a_generator(tmp_path, monkeypatch):
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path))
    G = tiny.model().G
    G.sha256 = "0" * 64
    first = moments_of(G, 100)
    (path,) = (tmp_path / "statistics").iterdir()
    G.mapping.fc0.weight.data.zero_()  # read from the file now, whatever the network says
    assert all(torch.equal(first[name], value) for name, value in moments_of(G, 100).items())
    path.write_bytes(path.read_bytes()[:200])
    fresh = moments_of(G, 100)
    assert not torch.equal(fresh["mean_w"], first["mean_w"])
    with pytest.raises(ConfigError, match="samples=1; expected at least 2"):
        measure(G, 1)
    G.c_dim = 3
    with pytest.raises(ConfigError, match="a conditional generator; expected one whose W"):
        measure(G, 100)


def test_refusals():
    with pytest.raises(ConfigError, match="ramp_down=0; expected a part of all steps"):
        projector(tiny.model(), ramp_down=0)
    with pytest.raises(ConfigError, match="start=encoder; expected w_avg, random, encode or the n"):
        projector(tiny.model(), start="encoder")
    with pytest.raises(ConfigError, match="start inverts into a generator, what follows into a g"):
        projector(tiny.model(), start=Encode(model=tiny.model()))
