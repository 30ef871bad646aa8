"""Generators from files: the rosinality layout both ways, ganinv's bundle, refusals."""

import json

import pytest
import torch

from ganinv.core.errors import WeightsError, WeightsMissing
from ganinv.core.latent import repeat_w
from ganinv.core.safe.io import write_safetensors
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer import rosinality
from ganinv.generator.importer.bundle import load_bundle, load_discriminator_state, save_bundle
from ganinv.generator.importer.load import load_discriminator, load_generator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from tests.generator.test_stylegan2 import TINY
from tests.golden_tools import GOLDEN, case


@pytest.mark.parametrize("size", [64, 256])
def test_rosinality_golden_and_round_trip(size):
    found = case(f"rosinality_generator_{size}")
    state = found.state()
    generator = rosinality.import_state(state, torch.zeros(512))
    w = generator.mapping(found.input("z"))
    assert found.error("w", w) < 1e-5
    assert found.error("image", generator.synthesis(found.input("w_plus"))) < 1e-5
    assert found.error("image_z", generator.synthesis(repeat_w(w, generator.num_ws))) < 1e-5
    out = rosinality.export_state(generator)
    assert set(out) == set(found.spec["state"])
    for key, value in state.items():
        assert torch.equal(out[key], value), key


def test_rosinality_key_table_at_1024():
    keys = json.loads((GOLDEN / "rosinality_generator_1024.keys.json").read_text())
    theirs = keys.get("state", keys.get("keys", keys))
    table = rosinality.names(1024, 8)
    kernels = {key for key in theirs if key.endswith(".kernel")}
    assert {name for name, _ in table.values()} | kernels == set(theirs)


def test_rosinality_discriminator_golden_and_round_trip(tmp_path):
    found = case("rosinality_discriminator_64")
    state = found.state()
    torch.save({"d": state}, tmp_path / "gan.pt")
    weights = load_discriminator(weights=str(tmp_path / "gan.pt"), origin=None)
    assert weights.kind == "StyleGAN2Discriminator"
    critic = weights.build(StyleGAN2Discriminator)
    assert found.error("logits", critic(found.input("image64"))) < 1e-5
    out = rosinality.export_discriminator(critic.state_dict(), 64)
    assert set(out) == set(found.spec["state"])
    assert all(torch.equal(out[key], value) for key, value in state.items())
    with pytest.raises(WeightsError, match="without final_conv.0.weight"):
        rosinality.import_discriminator({**{k: v for k, v in state.items() if "final" not in k}})


def tiny():
    torch.manual_seed(0)
    return StyleGAN2Generator(**TINY)


def test_every_torch_layout_is_told_by_its_content(tmp_path):
    torch.manual_seed(0)
    original = StyleGAN2Generator(**{**TINY, "channel_base": 128, "channel_max": 8})
    original.mapping.w_avg.normal_()
    state = rosinality.export_state(original)
    decoder = {f"decoder.{key}": value for key, value in state.items()}
    average = original.w_avg
    for name, content in {
        "g_ema.pt": {"g_ema": state, "latent_avg": average},
        "psp.pt": {"state_dict": decoder, "latent_avg": average.repeat(6, 1), "opts": {}},
    }.items():
        torch.save(content, tmp_path / name)
        loaded = load_generator(weights=str(tmp_path / name), resolution=16, kind=None, origin=None)
        wp = torch.randn(1, 6, 8)
        torch.testing.assert_close(loaded.synthesis(wp), original.synthesis(wp))
        torch.testing.assert_close(loaded.w_avg, average)
        assert len(loaded.sha256) == 64 and not any(p.requires_grad for p in loaded.parameters())


def test_a_missing_average_is_the_mean_w():
    generator = tiny()
    state = rosinality.export_state(generator)
    loaded = rosinality.import_state(state, None)
    mean = generator.mapping(torch.randn(20_000, 8)).mean(0)
    assert (loaded.w_avg - mean).norm() / mean.norm() < 0.1


def test_bundle_round_trip(tmp_path):
    generator = tiny()
    architecture = {"c_dim": 0, "resolution": 16, "img_channels": 3, "channel_base": 128}
    critic = StyleGAN2Discriminator(
        **architecture, channel_max=8, conv_clamp=None, mbstd_group_size=4
    )
    path = tmp_path / "g.safetensors"
    save_bundle(path, generator, {"kimg": 1}, critic)
    loaded = load_bundle(path)
    for key, value in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float()), key
    kind, arguments, weights = load_discriminator_state(path)
    assert kind == "StyleGAN2Discriminator"
    StyleGAN2Discriminator(**arguments).load_state_dict(weights)


def test_refusals(tmp_path):
    with pytest.raises(WeightsMissing, match="expected a generator file from the moon.*To fix"):
        load_generator(weights="nowhere.pt", resolution=None, kind=None, origin="the moon")
    path = tmp_path / "g.safetensors"
    save_bundle(path, tiny(), {})
    with pytest.raises(WeightsError, match="holds a generator of 16 px; expected one of 64 px"):
        load_generator(weights=str(path), resolution=64, kind=None, origin=None)
    other = tmp_path / "other.safetensors"
    write_safetensors(other, {"x": torch.zeros(1)}, {"format": "something"})
    with pytest.raises(WeightsError, match="format='something'.*ganinv import"):
        load_generator(weights=str(other), resolution=None, kind=None, origin=None)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_generator(weights=str(cut), resolution=None, kind=None, origin=None)
    odd = tmp_path / "odd.pt"
    torch.save({"epoch": 3}, odd)
    with pytest.raises(WeightsError, match=r"entries \['epoch'\]; expected 'g_ema'"):
        load_generator(weights=str(odd), resolution=None, kind=None, origin=None)


class Payload:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (print, ("executed",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pt"
    torch.save({"g_ema": Payload()}, path)
    with pytest.raises(WeightsError, match="never runs code stored in"):
        load_generator(weights=str(path), resolution=None, kind=None, origin=None)
    assert "executed" not in capsys.readouterr().out


def test_a_rosinality_file_that_asks_for_more_than_it_holds(tmp_path):
    """Many tiny convolutions say a resolution of millions of px."""
    small = rosinality.export_state(tiny())
    for count in (14, 40, 400):
        state = {key: value for key, value in small.items() if not key.startswith("noises")}
        state |= {f"convs.{i}.conv.weight": torch.zeros(1, 1, 1, 3, 3) for i in range(count)}
        torch.save({"g_ema": state}, tmp_path / "g.pt")
        with pytest.raises(WeightsError, match="expected"):
            load_generator(weights=str(tmp_path / "g.pt"), resolution=None, kind=None, origin=None)
