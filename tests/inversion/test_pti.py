"""PTI: each image its own change of the weights, one G for all, never moved."""

import copy

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.inversion.encode import Encode
from ganinv.inversion.optimise import check_batches
from tests.inversion import tiny
from tests.inversion.methods import image2stylegan, noise_maps, projector, pti


def test_it_is_plain_tuning_of_a_copy_of_the_generator():
    """Against the released way: a copy of G, one image, Adam over its weights."""
    model = tiny.model()
    before = copy.deepcopy(model.G.state_dict())
    target = tiny.target(model, "ab")
    method = pti(model, locality_weight=0.0, perceptual_weight=0.7)
    found = method(target)
    assert all(torch.equal(before[name], value) for name, value in model.G.state_dict().items())
    likeness = method.likeness
    for i, key in enumerate("ab"):
        G, one = copy.deepcopy(model.G), tiny.target(model, key)
        wp = model.encode(one.s)
        adam = torch.optim.Adam(G.synthesis.requires_grad_(True).parameters(), lr=0.01)
        for _ in range(6):
            values = likeness(one, likeness.remember(one), G.synthesis(wp))
            adam.zero_grad()
            (values["mse"] + 0.7 * values["perceptual"]).sum().backward()
            adam.step()
        image = model.render(found)[i]
        torch.testing.assert_close(image, G.synthesis(wp)[0].detach(), rtol=0, atol=1e-7)
        for name, value in G.named_parameters():
            if name in found.weights:
                change = (value - model.G.get_parameter(name)).detach()
                torch.testing.assert_close(found.weights[name][i], change, rtol=0, atol=1e-7)
    assert torch.equal(found.wp, model.encode(target.s))


def test_it_stops_before_the_step_at_the_threshold():
    model = tiny.model()
    target = tiny.target(model, "abcd")
    curve = pti(model)
    curve(target)
    first = curve.trace.values["perceptual"][0]
    method = pti(model, threshold=float(first.sort().values[:2].mean()))
    found = method(target)
    best, good = int(first.argmin()), method.trace.values["perceptual"]
    assert method.trace.steps[best] == 0 and method.trace.ended[best] == "converged"
    assert all(value[best].abs().max() == 0 for value in found.weights.values())
    assert max(method.trace.steps) > 0 and (good[0] > method.threshold).sum() == 3


def test_locality_looks_at_a_distance_of_exactly_alpha():
    model = tiny.model()
    target = tiny.target(model, "ab")
    method = pti(model, locality_alpha=30.0)
    pivot = model.encode(target.s)
    near = method.nearby(target, pivot, 3, 0)
    distance = (near - pivot).flatten(1).norm(dim=1)
    torch.testing.assert_close(distance, torch.full_like(distance, 30.0), rtol=1e-12, atol=0)
    again = method.nearby(target, pivot, 4, 0), method.nearby(target, pivot, 3, 1)
    assert all((near - other).abs().max() > 0.1 for other in again)
    assert (near[0] - near[1]).abs().max() > 0.1


def test_locality_keeps_what_is_around():
    model = tiny.model()
    target = tiny.target(model, "ab")

    def moved(weight):
        method = pti(model, locality_weight=weight, steps=25)
        found = method(target)
        wp = torch.cat([method.nearby(target, found.wp, 1000 + i, 0)[:1] for i in range(8)])
        weights = {n: v[:1].expand(8, *v.shape[1:]) for n, v in found.weights.items()}
        tuned = model.G.synthesis(wp, noise="none", weights=weights)
        return (tuned - model.G.synthesis(wp, noise="none")).square().mean()

    assert moved(10.0) < 0.5 * moved(0.0)


def test_any_pivot_and_its_noise():
    model = tiny.model()
    target = tiny.target(model, "ab")
    pivot = projector(model)
    found = pti(model, pivot=pivot)(target)
    again = pivot(target)
    assert torch.equal(found.wp, again.wp) and set(found.noise) == set(again.noise)
    chain = image2stylegan(model, start=Encode(model=model))
    assert torch.equal(pti(model, pivot=chain)(target).wp, chain(target).wp)
    tuned, words = pti(model), "a pivot that changes weights of its own; expected a method that"
    for pivot in (tuned, noise_maps(model, start=tuned)):  # when it is built
        with pytest.raises(ConfigError, match=words):
            pti(model, pivot=pivot)
    with pytest.raises(ConfigError, match=words):  # of a method that does not say so, when it is
        pti(model, pivot=lambda target: tuned(target))(target)
    pti(model, pivot=image2stylegan(model, start=tuned))  # which takes its code alone
    with pytest.raises(ConfigError, match="pivot inverts into a generator, what follows into"):
        pti(model, pivot=Encode(model=tiny.model()))
    with pytest.raises(ConfigError, match="pivot=projector; expected w_avg, random, encode or"):
        pti(model, pivot="projector")
    with pytest.raises(
        ConfigError, match="locality_samples=1, locality_alpha=0; expected at least one"
    ):
        pti(model, locality_alpha=0)


def test_shared_images_have_one_change_that_descends_their_mean():
    """Against a copy of G, tuned on the mean loss of both; no image stops before the others."""
    model = tiny.model()
    target = tiny.target(model, "ab")
    method = pti(model, locality_weight=0.0, shared=True, threshold=1e9)
    found = method(target)
    assert method.trace.steps == [6, 6]
    G = copy.deepcopy(model.G)
    wp = model.encode(target.s)
    adam = torch.optim.Adam(G.synthesis.requires_grad_(True).parameters(), lr=0.01)
    for _ in range(6):
        values = method.likeness(target, method.likeness.remember(target), G.synthesis(wp))
        adam.zero_grad()
        (values["mse"] + values["perceptual"]).mean().backward()
        adam.step()
    for name, value in found.weights.items():
        assert torch.equal(value[0], value[1])
        change = (G.get_parameter(name) - model.G.get_parameter(name)).detach()
        torch.testing.assert_close(value[0], change, rtol=0, atol=1e-7)
    own = pti(model, locality_weight=0.0)(target).weights
    assert any((value[0] != value[1]).any() for value in own.values())


def test_images_that_share_are_not_cut_into_batches():
    model = tiny.model()
    method = pti(model, shared=True)
    check_batches({"pti": method, "encode": Encode(model=model)}, 4, 4)
    check_batches({"pti": pti(model)}, 40, 4)
    words = "pti with shared=true on 5 images in batches of 4; expected one batch: .* size to 5"
    with pytest.raises(ConfigError, match=words):
        check_batches({"pti": method}, 5, 4)
    after = noise_maps(model, start=method)
    with pytest.raises(ConfigError, match="noise_maps with shared=true on 5 images"):
        check_batches({"noise_maps": after}, 5, 4)
