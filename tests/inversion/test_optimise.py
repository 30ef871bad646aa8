"""The loop: an image's result is its own, whatever else is in the batch and whatever befalls it."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.inversion.encode import Encode
from ganinv.inversion.image2stylegan import Image2StyleGAN
from ganinv.inversion.model import Model
from ganinv.inversion.optimise import Optimise, check_targets, take_rows
from tests.inversion import tiny
from tests.inversion.methods import METHODS, domain_regularised, image2stylegan, parts, pti

TOLERANCE = {"rtol": 0.0, "atol": 1e-9}  # of float64: convolutions round by their batch's size


@pytest.mark.parametrize("name", METHODS)
def test_four_together_are_four_alone_in_any_order(name):
    model = tiny.model()
    method = METHODS[name](model)
    together = dict(parts(method(tiny.target(model, "abcd"))))
    backwards = dict(parts(method(tiny.target(model, "dcba"))))
    again = dict(parts(method(tiny.target(model, "abcd")))) if name == "projector" else together
    for i, key in enumerate("abcd"):
        alone = method(tiny.target(model, key))
        for part, value in parts(alone):
            torch.testing.assert_close(value[0], together[part][i], **TOLERANCE)
            torch.testing.assert_close(value[0], backwards[part][3 - i], **TOLERANCE)
            assert torch.equal(together[part], again[part])  # and the same again, bit for bit


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_method_comes_nearer(family):
    model = tiny.model(family)
    target = tiny.target(model, "ab")
    for name, make in METHODS.items():
        if name == "noise_maps" and family == "stylegan3":
            with pytest.raises(ConfigError, match="without noise maps .StyleGAN3."):
                make(model)
            continue
        method = make(model)
        found = method(target)
        curve = method.trace.values[method.shown]
        assert (curve[-1] < curve[0]).all(), name
        assert all(not value.requires_grad for _, value in parts(found)), name
        mse = (model.render(found) - target.x).square().mean((1, 2, 3))
        if "mse" in method.trace.values:
            torch.testing.assert_close(mse, method.trace.values["mse"][-1], rtol=0.3, atol=0.0)


class StopsEarly(Image2StyleGAN):
    """Images are good enough below a loss of their own."""

    def start(self, target):
        leaves, known = super().start(target)
        limits = {"a": 0.0, "b": 0.2, "c": 1e9, "d": 0.0}
        known["limit"] = torch.tensor([limits[key] for key in target.key]).double()
        self.seen = []
        return leaves, known

    def losses(self, target, leaves, known, image, step):
        values = super().losses(target, leaves, known, image, step)
        values["over"] = values["mse"] / values["mse"].detach().clamp_min(1e-9) * 0 + known["limit"]
        self.seen.append((list(target.key), leaves["wp"].detach().clone()))
        return values

    def converged(self, values):
        return values["mse"] <= values["over"]


def test_an_image_that_converged_leaves_the_batch_and_moves_no_more():
    model = tiny.model()
    method = image2stylegan(model, StopsEarly)
    target = tiny.target(model, "abcd")
    found, trace = method(target), None
    trace, seen = method.trace, method.seen
    full = image2stylegan(model)(target)
    step = trace.steps[1]
    assert trace.steps[2] == 0 and 0 < step < 12 and trace.steps[0] == trace.steps[3] == 12
    assert trace.ended == ["all steps", "converged", "converged", "all steps"]
    assert torch.equal(found.wp[2], model.G.w_avg.expand(model.num_ws, -1))
    assert seen[0][0] == list("abcd") and seen[-1][0] == list("ad")
    keys, leaves = seen[step]
    assert torch.equal(found.wp[1], leaves[keys.index("b")])  # as it was when it was good enough
    for i in (0, 3):
        torch.testing.assert_close(found.wp[i], full.wp[i], **TOLERANCE)
    for name, curve in trace.values.items():
        assert curve.shape == (12, 4), name
        ends = [int(column.isfinite().sum()) for column in curve.t()]
        assert ends == [12, step + 1, 1, 12], name
    assert trace.seconds > 0


class Fails(Image2StyleGAN):
    """Image b's loss or gradient is NaN at step 5."""

    where = "loss"

    def losses(self, target, leaves, known, image, step):
        values = super().losses(target, leaves, known, image, step)
        bad = torch.tensor([float(key == "b" and step == 5) for key in target.key]).double()
        zero = (leaves["wp"] - leaves["wp"].detach()).square().sum((1, 2))
        if self.where == "loss":
            values["mse"] = values["mse"] + torch.where(bad > 0, math.nan, 0.0)
        else:  # sqrt at 0: the value is 0, its derivative is not finite
            values["mse"] = values["mse"] + torch.where(bad > 0, zero, zero + 1).sqrt() - (1 - bad)
        return values


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_nan_of_one_image_stops_that_image_only_and_is_told(where, caplog):
    model = tiny.model()
    target = tiny.target(model, "abcd")
    method = image2stylegan(model, Fails)
    method.where = where
    found = method(target)
    fine = image2stylegan(model)(target)
    short = image2stylegan(model, steps=4 if where == "loss" else 5)(target)
    for i in (0, 2, 3):
        torch.testing.assert_close(found.wp[i], fine.wp[i], **TOLERANCE)
    torch.testing.assert_close(found.wp[1], short.wp[1], **TOLERANCE)  # before it went wrong
    assert method.trace.ended == ["all steps", "not finite", "all steps", "all steps"]
    assert method.trace.steps == [12, 5, 12, 12]
    (told,) = caplog.messages
    assert "Fails: b came to a loss or gradient that is no finite number after 5 steps" in told or (
        told.startswith("b: Fails came to")
    )


def test_all_failing_at_once_gives_the_start_back():
    model = tiny.model()
    target = tiny.target(model, "ab")
    broken = replace(target, x=target.x * math.nan)
    method = image2stylegan(model)
    found = method(broken)
    assert torch.equal(found.wp, model.G.w_avg.expand(2, model.num_ws, -1))
    assert method.trace.ended == ["not finite"] * 2 and method.trace.steps == [0, 0]


def test_float32_batches_agree_to_rounding():
    """Over a few steps; over many, Adam carries a rounding of nearly flat directions far."""
    model = tiny.model(dtype=torch.float32)
    method = image2stylegan(model, perceptual=tiny.perceptual(torch.float32), steps=5)
    together = method(tiny.target(model, "abcd")).wp
    alone = torch.cat([method(tiny.target(model, key)).wp for key in "abcd"])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_the_targets_features_are_computed_once():
    model, term = tiny.model(), tiny.perceptual()
    image2stylegan(model, perceptual=term, steps=5)(tiny.target(model))
    assert term.backbone.calls == 1 + 5


def test_weights_stay_frozen_and_untouched_under_no_grad():
    model = tiny.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        image2stylegan(model)(tiny.target(model))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_adam_is_torchs_after_an_image_left():
    """Moments travel along: against a plain loop over the one image that stays."""
    model = tiny.model()
    target = tiny.target(model, "ca")
    found = image2stylegan(model, StopsEarly)(target)
    method = image2stylegan(model)
    one = take_rows(target, torch.tensor([1]))
    known = method.likeness.remember(one)
    wp = model.G.w_avg.expand(1, model.num_ws, -1).clone().requires_grad_()
    adam = torch.optim.Adam([wp], lr=0.05)
    for _ in range(12):
        values = method.likeness(one, known, model.G.synthesis(wp))
        adam.zero_grad()
        (values["mse"] + 0.5 * values["perceptual"]).sum().backward()
        adam.step()
    torch.testing.assert_close(found.wp[1], wp[0].detach(), **TOLERANCE)


def test_refusals_before_the_first_step():
    model = tiny.model()
    target = tiny.target(model, "ab")
    method = image2stylegan(model)

    def refused(words, **changes):
        with pytest.raises(ConfigError, match=words):
            method(replace(target, **changes))

    refused("images of 12 x 12 px for a generator of 16 x 16 px; expected square images whose side "
            "divides 16 px", x=target.x[..., :12, :12])  # fmt: skip
    refused("images of 8 x 16 px", x=target.x[..., :8, :])
    refused("images of 32 x 32 px", x=target.x.repeat(1, 1, 2, 2))
    refused("a mask of shape .2, 1, 8, 8.; expected .2, 1, 16, 16.", mask=torch.ones(2, 1, 8, 8))
    mask = torch.ones(2, 1, 16, 16)
    mask[1] = 0
    refused("the mask of b with values from 0 to 0; expected 0 where", mask=mask)
    assert method.trace is None
    for bad in (0, -1, 1.5):
        with pytest.raises(ConfigError, match=f"steps={bad} for Image2StyleGAN; expected a whole"):
            image2stylegan(model, steps=bad)
    with pytest.raises(ConfigError, match="lr=0 for Image2StyleGAN; expected a number above 0"):
        image2stylegan(model, lr=0)
    with pytest.raises(ConfigError, match="start=encoder; expected w_avg, random, encode or"):
        image2stylegan(model, start="encoder")
    with pytest.raises(ConfigError, match="space=p; expected one of w., w, z"):
        image2stylegan(model, space="p")
    with pytest.raises(ConfigError, match="space=z with start=w_avg; expected start=random"):
        image2stylegan(model, space="z")
    with pytest.raises(ConfigError, match="start inverts into a generator, what follows into a g"):
        image2stylegan(model, start=Encode(model=tiny.model()))


def test_the_domain_term_by_formula_and_its_ablation():
    """|E(G(wp)) - wp|^2 by its formula; without it the method is Image2StyleGAN from E's code."""
    model = tiny.model()
    target = tiny.target(model, "ab")
    method = domain_regularised(model)
    leaves, known = method.start(target)
    assert torch.equal(leaves["wp"], model.encode(target.s))
    wp = leaves["wp"] + 0.1 * torch.randn_like(leaves["wp"])
    image = model.render(wp)
    values = method.losses(target, {"wp": wp}, known, image, 0)
    expected = (model.encode(image) - wp).square().mean((1, 2))
    torch.testing.assert_close(values["domain"], expected)
    assert method.weights()["domain"] == 2.0 and expected.min() > 0
    without = domain_regularised(model, domain_weight=0.0)
    without(target)
    assert (without.trace.values["domain"] == 0).all()
    plain = image2stylegan(model, start=Encode(model=model), lr=0.02)
    torch.testing.assert_close(without(target).wp, plain(target).wp, rtol=0, atol=1e-9)
    with_term = method(target).wp
    near, far = ((model.encode(model.render(wp)) - wp).square().mean()
                 for wp in (with_term, without(target).wp))  # fmt: skip
    assert near < far


def test_the_domain_term_wants_images_of_the_encoder_s_size():
    model = tiny.model()
    target = tiny.target(model, "ab")
    small = replace(target, x=target.x[..., ::2, ::2])
    words = "images of 8 x 8 px for domain_regularised, whose encoder reads 16 x 16; expected imag"
    with pytest.raises(ConfigError, match=words):
        domain_regularised(model)(small)
    domain_regularised(model, domain_weight=0.0, steps=1)(small)


class Refines(tiny.Linear):
    """An encoder such as ReStyle's: of an image and a reconstruction."""

    def forward(self, pair):
        image, reconstruction = pair.chunk(2, 1)
        return 0.3 * super().forward(image - reconstruction)


def test_optimisation_goes_on_from_restyle_s_passes():
    plain = tiny.model()
    encoder = Refines(plain.num_ws, tiny.SIZE).double()
    model = Model(encoder=encoder, generator=plain.G, task=plain.task, start_from_w_avg=True,
                  refinements=3).freeze()  # fmt: skip
    target = tiny.target(model, "ab")
    codes = [wp for wp, _ in model.passes(target.s)]
    assert len(codes) == 3 and (codes[2] - codes[0]).abs().max() > 1e-3
    for method in (image2stylegan(model, start=Encode(model=model)), domain_regularised(
            model, start=Encode(model=model))):  # fmt: skip
        assert torch.equal(method.start(target)[0]["wp"], codes[2])
    method = image2stylegan(model, start=Encode(model=model))
    method(target)
    assert (method.trace.values["total"][-1] < method.trace.values["total"][0]).all()


def test_sizes_are_refused_before_there_are_images():
    """Of a method and of those that it starts from."""
    model = tiny.model()
    near = domain_regularised(model)
    methods = {"pti": pti(model, pivot=near), "encode": Encode(model=model)}
    check_targets(methods, model, (16, 16))
    with pytest.raises(ConfigError, match="images of 8 x 8 px for domain_regularised, whose enc"):
        check_targets(methods, model, (8, 8))
    with pytest.raises(ConfigError, match="images of 12 x 12 px for a generator of 16 x 16 px"):
        check_targets({"image2stylegan": image2stylegan(model)}, model, (12, 12))


def test_the_bar_says_steps_loss_and_images_a_minute(monkeypatch):
    said = []

    class Bar:
        disable = False

        def __init__(self, **given):
            said.append(given)

        def set_postfix_str(self, text):
            said.append(text)

        def update(self):
            said.append(1)

        def close(self):
            said.append("closed")

    monkeypatch.setattr("ganinv.inversion.pace.tqdm", Bar)
    model = tiny.model()
    method = image2stylegan(model)
    method(tiny.target(model, "ab"))
    assert said[0]["total"] == 12 and said[0]["desc"] == "Image2StyleGAN"
    loss = method.trace.values["total"][0].mean()
    assert said[2].startswith(f"total {loss:.4g}, about ") and said[2].endswith(" images/minute")
    assert said.count(1) == 12 and said[-1] == "closed"
    assert said[0]["disable"] is None  # where there is a terminal
    monkeypatch.setattr("multiprocessing.parent_process", lambda: "rank 0")
    method(tiny.target(model, "a"))
    assert [given["disable"] for given in said if isinstance(given, dict)] == [None, True]


def test_without_a_terminal_a_line_a_minute_says_the_same(monkeypatch, caplog):
    """A step takes 25 s: after the third, sixth, ninth and twelfth. Twelve take 5 minutes."""
    seconds = [0.0]

    class Slow(Image2StyleGAN):
        def losses(self, *given):
            seconds[0] += 25.0
            return super().losses(*given)

    clock = SimpleNamespace(monotonic=lambda: seconds[0])
    monkeypatch.setattr("ganinv.inversion.pace.time", clock)
    caplog.set_level("INFO", "ganinv.inversion.pace")
    model = tiny.model()
    method = image2stylegan(model, Slow)
    method(tiny.target(model, "ab"))
    third = method.trace.values["total"][2].mean()
    assert caplog.messages[0] == (
        f"Slow: 3 of 12 steps, total {third:.4g}, about 0.4 images/minute"
    )
    assert [message.split()[1] for message in caplog.messages] == ["3", "6", "9", "12"]


def test_the_loop_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Optimise(model=tiny.model(), steps=1, lr=1.0)
