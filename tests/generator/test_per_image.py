"""Noise maps and changes of the weights, image by image: B images at once are B runs on B mutated
copies of the generator, forward and gradient."""

import copy

import pytest
import torch

from ganinv.core.interface import Inversion
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan3 import StyleGAN3Generator
from ganinv.inversion.model import Model
from ganinv.task.image import Image
from tests.generator.test_stylegan3 import TINY as THIRD
from tests.interop.models import TINY, stylegan2
from tests.interop.test_plain import FIRST

B = 3


def generator_of(kind):
    torch.manual_seed(0)
    if kind == "stylegan2":
        generator = stylegan2(32, shape=TINY, clamp=256)
    elif kind == "stylegan":
        generator = StyleGANGenerator(**FIRST)
        for name, value in generator.named_parameters():
            if name.endswith("noise_strength"):
                value.data.fill_(0.1)
    else:
        generator = StyleGAN3Generator(**THIRD)
    return generator.double().eval().requires_grad_(False)


def model_on(generator):
    encoder = torch.nn.Identity()
    encoder.input_size = (8, 8)
    return Model(encoder=encoder, generator=generator, task=Image(), start_from_w_avg=False)


def changes_of(generator, scale=0.1):
    own = {k: v for k, v in generator.named_parameters() if k.startswith("synthesis.")}
    return {
        k: (scale * torch.randn(B, *v.shape).double()).requires_grad_(True) for k, v in own.items()
    }


def noise_of(generator):
    buffers = {k: v for k, v in generator.named_buffers() if k.endswith("noise_const")}
    return {
        k: torch.randn(B, 1, *v.shape, dtype=torch.float64, requires_grad=True)
        for k, v in buffers.items()
    }


def mutated(generator, weights, noise, i):
    """A copy whose own weights and stored noise are those of image i, leaves of its graph."""
    own = copy.deepcopy(generator)
    for name, parameter in own.named_parameters():
        if name in weights:
            parameter.data += weights[name][i].detach()
            parameter.requires_grad_(True)
    for name, buffer in own.named_buffers():
        if name in noise:
            buffer.copy_(noise[name][i, 0].detach())
            buffer.requires_grad_(True)
    return own


@pytest.mark.parametrize(
    ("kind", "fused"),
    [("stylegan2", False), ("stylegan2", True), ("stylegan", False), ("stylegan3", False)],
)
def test_a_batch_is_as_many_runs_on_mutated_copies(kind, fused):
    generator = generator_of(kind)
    if kind == "stylegan2":
        generator.set_fused(fused)
    before = copy.deepcopy(generator.state_dict())
    weights, noise = changes_of(generator), noise_of(generator)
    wp = torch.randn(B, generator.num_ws, generator.w_dim).double()
    found = Inversion(wp, noise=noise or None, weights=weights)
    images = model_on(generator).render(found)
    leaves = weights | {f"{k} noise": v for k, v in noise.items()}
    gradients = torch.autograd.grad(images.square().sum(), list(leaves.values()))
    gradient = dict(zip(leaves, gradients, strict=True))
    size = max(value.abs().max().item() for value in gradients)
    for i in range(B):
        own = mutated(generator, weights, noise, i)
        image = own.synthesis(wp[i : i + 1])
        torch.testing.assert_close(images[i : i + 1], image)
        image.square().sum().backward()
        held = {k: p.grad for k, p in own.named_parameters() if k in weights}
        held |= {f"{k} noise": b.grad for k, b in own.named_buffers() if k in noise}
        for name, expected in held.items():
            torch.testing.assert_close(
                gradient[name][i].reshape(expected.shape),
                expected,
                rtol=1e-7,
                atol=1e-11 * size,
                msg=lambda m, n=name: f"{n}: {m}",
            )
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert all(not p.requires_grad and p.grad is None for p in generator.parameters())


@pytest.mark.parametrize("kind", ["stylegan2", "stylegan"])
def test_f_noise_and_weights_together_and_some_only(kind):
    generator = generator_of(kind)
    channels = generator.synthesis.channels[8]
    f, wp = (
        torch.randn(B, channels, 8, 8).double(),
        torch.randn(B, generator.num_ws, generator.w_dim).double(),
    )
    weights, noise = changes_of(generator), noise_of(generator)
    some = dict(list(weights.items())[-3:]), dict(list(noise.items())[-1:])
    for weight, maps in ((weights, noise), some):
        images = model_on(generator).render(Inversion(wp, f=f, noise=maps, weights=weight))
        for i in range(B):
            own = mutated(generator, weight, maps, i)
            image = own.synthesis(wp[i : i + 1], f=f[i : i + 1])
            torch.testing.assert_close(images[i : i + 1], image)


def test_no_change_is_the_generator():
    generator = generator_of("stylegan2")
    wp = torch.randn(B, generator.num_ws, generator.w_dim).double()
    stored = {k: v.expand(B, 1, *v.shape) for k, v in generator.named_buffers()
              if k.endswith("noise_const")}  # fmt: skip
    plain = generator.synthesis(wp)
    assert torch.equal(generator.synthesis(wp, noise=stored), plain)
    zero = {k: torch.zeros_like(v) for k, v in changes_of(generator).items()}
    torch.testing.assert_close(generator.synthesis(wp, weights=zero), plain)
    torch.testing.assert_close(
        generator.synthesis(wp, noise="none", weights=zero),
        generator.synthesis(wp, noise="none"),
    )


def test_refusals():
    generator = generator_of("stylegan2")
    wp = torch.randn(B, generator.num_ws, generator.w_dim).double()

    def refused(words, network=generator, **given):
        with pytest.raises(ValueError, match=words):
            network.synthesis(wp if network is generator else other, **given)

    name, map_name = "synthesis.b8.conv1.weight", "synthesis.b8.conv1.noise_const"
    shape = (B, *generator.get_parameter(name).shape)
    refused("weights with 'b8.conv1.weight'; expected names of", weights={"b8.conv1.weight": wp})
    refused(r"of \(1, 8, 8, 3, 3\); expected \(3, 8,", weights={name: torch.zeros(1, *shape[1:])})
    refused("random noise with weights", weights={name: torch.zeros(shape)}, noise="random")
    refused("noise with 'x'; expected names of", noise={"x": wp})
    refused(r"of \(3, 8, 8\); expected \(3, 1, 8, 8\)", noise={map_name: torch.zeros(B, 8, 8)})
    third = generator_of("stylegan3")
    other = torch.randn(B, third.num_ws, third.w_dim).double()
    refused("names of the generator's own .none", network=third, noise={map_name: wp})
