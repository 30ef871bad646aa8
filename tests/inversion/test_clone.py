"""Clone: a game of its own for each image, that leaves the rest of the manifold where it is."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ganinv.core.errors import ConfigError, WeightsError
from ganinv.core.seed import derive_seed, rand_rows
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import load_generator
from ganinv.inversion.clone import CRITIC, PREFIX
from tests.inversion import tiny
from tests.inversion.methods import clone, pti


def by_hand(model, method, key):
    """Two copied networks, two optimizers, one image, the equations as they stand."""
    G, D = copy.deepcopy(model.G), copy.deepcopy(method.D)
    before = copy.deepcopy(model.G)
    G.synthesis.requires_grad_(True), D.requires_grad_(True)
    one = tiny.target(model, key)
    wp = model.encode(one.s)
    players = [
        torch.optim.Adam(part.parameters(), lr=0.01, betas=(0.0, 0.99)) for part in (G.synthesis, D)
    ]
    for step in range(method.steps):
        drawn = rand_rows([derive_seed(one.seeds[0], "local", step)], "cpu")
        fakes, reals = (method.codes(one, kind, step)[0] for kind in ("fake", "real"))
        reals = before.synthesis(reals).detach()
        x_hat, other = G.synthesis(wp), G.synthesis(fakes)
        of_g = 0.5 * F.softplus(-D(other)).mean()
        of_d = 0.5 * (F.softplus(-D(reals)) + F.softplus(D(other.detach()))).mean()
        if drawn.item() < 0.7:
            of_g = of_g + method.pyramid(x_hat, one.x).sum() + 0.05 * F.softplus(-D(x_hat)).sum()
            local = F.softplus(-D(one.x)) + F.softplus(D(x_hat.detach()))
            of_d = of_d + 0.05 * local.sum()
        if step % 2 == 0:
            given = reals.clone().requires_grad_()
            slope = torch.autograd.grad(D(given).sum(), given, create_graph=True)[0]
            of_d = of_d + 1.0 / 2 * 2 * slope.square().sum((1, 2, 3)).mean()
        grads = [
            torch.autograd.grad(loss, list(part.parameters()), allow_unused=True,
                                materialize_grads=True, retain_graph=True)
            for loss, part in ((of_g, G.synthesis), (of_d, D))
        ]  # fmt: skip
        for player, part, found in zip(players, (G.synthesis, D), grads, strict=True):
            for parameter, grad in zip(part.parameters(), found, strict=True):
                parameter.grad = grad
            player.step()
    return G


def test_it_is_the_game_of_two_copied_networks():
    model = tiny.model()
    method = clone(model)
    target = tiny.target(model, "ab")
    found = method(target)
    assert set(found.weights) == {PREFIX + n for n, _ in model.G.synthesis.named_parameters()}
    for i, key in enumerate("ab"):
        G = by_hand(model, method, key)
        for name, value in found.weights.items():
            change = (G.get_parameter(name) - model.G.get_parameter(name)).detach()
            torch.testing.assert_close(value[i], change, rtol=0, atol=1e-8)


def test_the_local_term_is_drawn_for_each_image_and_step():
    model = tiny.model()
    target = tiny.target(model, "abcd")
    method = clone(model, steps=40, lr=1e-6)
    method(target)
    local = method.trace.values["local"]
    drawn = (local > 0).double()
    assert 0.5 < drawn.mean() < 0.9
    assert (drawn[0] != drawn[1]).any() and (drawn.t()[0] != drawn.t()[1]).any()
    never = clone(model, local_probability=0.0)
    never(target)
    assert (never.trace.values["local"] == 0).all()
    always = clone(model, local_probability=1.0, adversarial_weight=0.0, global_weight=0.0)
    always(target)
    assert always.D is None
    assert torch.equal(always.trace.values["local"], always.trace.values["pyramid"])


def test_the_global_term_keeps_what_is_elsewhere():
    """Another code's image moves less where the game goes on around it."""
    model = tiny.model()
    target = tiny.target(model, "ab")

    def moved(weight):
        method = clone(model, steps=30, local_probability=1.0, adversarial_weight=0.0,
                       global_weight=weight, r1_gamma=0.1, global_batch=4)  # fmt: skip
        found = method(target)
        wp = method.codes(target, "elsewhere", 0)[0]
        weights = {n: v[:1].expand(4, *v.shape[1:]) for n, v in found.weights.items()}
        tuned = model.G.synthesis(wp, weights=weights)
        return (tuned.mean(0) - model.G.synthesis(wp).mean(0)).square().mean()

    assert moved(30.0) < moved(0.0)


def test_an_image_that_is_near_enough_stops():
    model = tiny.model()
    target = tiny.target(model, "abcd")
    first = clone(model)
    first(target)
    method = clone(model, epsilon=float(first.trace.values["pyramid"][0].median()))
    found = method(target)
    assert sorted(method.trace.ended).count("converged") >= 2
    place = method.trace.steps.index(0)
    assert all(value[place].abs().max() == 0 for value in found.weights.values())


def test_the_discriminator_of_the_generator_s_file_and_training_images(tmp_path):
    model = tiny.model(dtype=torch.float32)
    save_bundle(tmp_path / "g.safetensors", model.G, {}, tiny.critic(model), half=False)
    save_bundle(tmp_path / "alone.safetensors", model.G, {}, half=False)
    for i in range(3):
        pixels = np.full((20, 30, 3), 60 * i, dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    model.G = load_generator(weights=str(tmp_path / "g.safetensors"), resolution=None, kind=None,
                             origin=None)  # fmt: skip
    method = clone(model, critic=None, real_images=str(tmp_path / "photos"), steps=1)
    theirs, state = tiny.critic(model).state_dict(), method.D.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in theirs.items())
    target = tiny.target(model, "ab")
    found = method.reals(target.seeds, 3, 8)
    assert found.shape == (2, 8, 3, 16, 16)
    assert len(set(found[:, :, 0, 0, 0].flatten().tolist())) == 3
    assert torch.equal(found[1], method.reals(target.seeds[1:], 3, 8)[0])
    method(target)
    with pytest.raises(WeightsError, match="alone.safetensors, which holds no discriminator; exp"):
        clone(model, critic=str(tmp_path / "alone.safetensors"))
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="real_images=.*none, which holds no images; expected"):
        clone(model, real_images=str(tmp_path / "none"))


def test_refusals():
    model = tiny.model()
    with pytest.raises(ConfigError, match="local_probability=1.5; expected a number from 0 to 1"):
        clone(model, local_probability=1.5)
    with pytest.raises(ConfigError, match="clone on a generator of no file, which has no discrim"):
        clone(model, critic=None)
    other = tiny.critic(tiny.model(size=32))
    with pytest.raises(ConfigError, match="a discriminator of 32 px, 0 classes, for a generator"):
        clone(model, critic=other)
    target = tiny.target(model, "a")
    with pytest.raises(ConfigError, match="a pivot that changes weights of its own; expected a"):
        clone(model, pivot=pti(model))
    assert clone(model).whole(target.x).shape == target.x.shape
    assert clone(model).whole(target.x[..., ::2, ::2]).shape == target.x.shape
    assert any(name.startswith(CRITIC) for name in clone(model).start(target)[0])
