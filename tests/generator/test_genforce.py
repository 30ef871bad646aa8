"""StyleGAN (v1) files of genforce: both layouts, both ways, both networks, and refusals."""

import pytest
import torch

from ganinv.core.errors import WeightsError
from ganinv.discriminator.stylegan import StyleGANDiscriminator
from ganinv.generator.importer import genforce
from ganinv.generator.importer.bundle import load_bundle, save_bundle
from ganinv.generator.importer.load import load_discriminator, load_generator
from ganinv.generator.stylegan import StyleGANGenerator
from tests.generator.test_stylegan import tiny
from tests.golden_tools import case


@pytest.mark.parametrize("size", [64, 256])
def test_golden_state_goes_out_as_it_came_in(size):
    found = case(f"stylegan1_genforce_generator_{size}")
    state = found.state()
    out = genforce.export_state(genforce.import_state(state), "idinvert")
    assert set(out) == set(found.spec["state"])
    for key, value in state.items():
        if key != "truncation.truncation":  # its reader overwrites it
            assert torch.equal(out[key], value), key
    shapes = {key: entry["shape"] for key, entry in found.spec["state"].items()}
    assert {key: list(value.shape) for key, value in out.items()} == shapes


def idinvert_to_genforce(state, rows):
    """The map between the layouts as the references' notes state it, key by key."""
    out = {}
    for key, value in state.items():
        if key == "truncation.truncation":
            continue
        if key == "truncation.w_avg":
            value = value.repeat(rows)
        if key.endswith(".weight") and value.ndim == 4 and value.shape[:2] == (3, 3):
            value = value.permute(3, 2, 0, 1)
        for old, new in (
            (".fc.weight", ".weight"),
            (".wscale.bias", ".bias"),
            (".epilogue.", "."),
            (".style_mod.dense", ".style"),
            (".conv.weight", ".weight"),
        ):
            key = key.replace(old, new)
        out[key] = value
    return out


@pytest.mark.parametrize("resolution", [16, 128])
def test_the_two_layouts_hold_the_same_network(resolution):
    generator = tiny(resolution=resolution, channel_base=8 * resolution, layerwise=True)
    generator.mapping.w_avg.normal_()
    old = genforce.export_state(generator, "idinvert")
    new = genforce.export_state(generator, "genforce")
    expected = idinvert_to_genforce(old, generator.num_ws)
    assert set(new) == set(expected)
    assert all(torch.equal(new[key], value) for key, value in expected.items())
    for state in (old, new):
        loaded = genforce.import_state(state).state_dict()
        for key, value in generator.state_dict().items():
            assert torch.equal(loaded[key], value), key


def test_published_kinds_are_told_by_their_content(tmp_path):
    """Layer-wise networks of the idinvert layout end in a tanh; all others do not."""
    usual, layerwise = tiny(), tiny(layerwise=True)
    contents = {
        "styleganinv.pth": (genforce.export_state(layerwise, "idinvert"), True, True),
        "interfacegan.pth": (genforce.export_state(usual, "idinvert"), False, False),
        "zoo.pth": (
            {"generator": {}, "generator_smooth": genforce.export_state(usual, "genforce")},
            False,
            False,
        ),
        "training.pth": (
            {"models": {"generator_smooth": genforce.export_state(layerwise, "genforce")}},
            True,
            False,
        ),
    }
    for name, (content, rows, tanh) in contents.items():
        torch.save(content, tmp_path / name)
        loaded = load_generator(weights=str(tmp_path / name), resolution=16, kind=None, origin=None)
        assert isinstance(loaded, StyleGANGenerator)
        assert loaded.architecture["layerwise"] is rows, name
        assert loaded.architecture["final_tanh"] is tanh, name
        wp = torch.randn(2, 6, 8)
        original = (layerwise if rows else usual).synthesis(wp)
        torch.testing.assert_close(loaded.synthesis(wp), original.tanh() if tanh else original)
        assert len(loaded.sha256) == 64 and not any(p.requires_grad for p in loaded.parameters())


def critic(resolution):
    torch.manual_seed(0)
    return StyleGANDiscriminator(
        resolution=resolution,
        img_channels=3,
        channel_base=4 * resolution,
        channel_max=8,
        mbstd_group_size=4,
    )


@pytest.mark.parametrize("resolution", [16, 128])
def test_discriminator_both_ways(tmp_path, resolution):
    original = critic(resolution)
    state = genforce.export_discriminator(original.state_dict(), resolution)
    torch.save({"models": {"discriminator": state}}, tmp_path / "gan.pth")
    found = load_discriminator(weights=str(tmp_path / "gan.pth"), origin=None)
    assert found.kind == "StyleGANDiscriminator"
    loaded = found.build(StyleGANDiscriminator)
    x = torch.randn(4, 3, resolution, resolution)
    assert torch.equal(loaded(x), original(x))


def test_bundle_of_both_networks(tmp_path):
    generator, original = tiny(layerwise=True, final_tanh=True), critic(16)
    path = tmp_path / "g.safetensors"
    save_bundle(path, generator, {}, original)
    loaded = load_bundle(path)
    assert isinstance(loaded, StyleGANGenerator)
    assert loaded.architecture == generator.architecture
    for key, value in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float()), key
    found = load_discriminator(weights=str(path), origin=None)
    assert found.kind == "StyleGANDiscriminator"
    assert isinstance(found.build(StyleGANDiscriminator), StyleGANDiscriminator)
    with pytest.raises(WeightsError, match="weights of a StyleGANDiscriminator for a Style.*class"):
        found.build(StyleGANGenerator)


def test_refusals(tmp_path):
    state = genforce.export_state(tiny(layerwise=True), "genforce")

    def refused(words, **changes):
        given = {k: v for k, v in {**state, **changes}.items() if v is not None}
        with pytest.raises(WeightsError, match=words):
            genforce.import_state(given)

    refused("at level of detail.*end of progressive growing", **{"synthesis.lod": torch.ones([])})
    refused("without synthesis.layer3.bias", **{"synthesis.layer3.bias": None})
    refused("without synthesis.layer3.weight", **{"synthesis.layer3.weight": None})
    refused(r"has shape \(7, 8, 3, 3\)", **{"synthesis.layer3.weight": torch.zeros(7, 8, 3, 3)})
    refused("unknown mapping.label.*without labels", **{"mapping.label": torch.zeros(1)})
    refused("layers that differ.*layer 0, as IDInvert", **{"truncation.w_avg": torch.arange(48.0)})
    refused("without truncation.w_avg", **{"truncation.w_avg": None})
    with pytest.raises(WeightsError, match="without input0"):
        genforce.import_discriminator({})
    torch.save({"g_ema": {}}, tmp_path / "g.pt")
    with pytest.raises(WeightsError, match="no discriminator.*holds both networks"):
        load_discriminator(weights=str(tmp_path / "g.pt"), origin=None)
