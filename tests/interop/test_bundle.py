"""ganinv.load: three lines that give codes and images; another generator is refused."""

import json

import pytest
import torch

import ganinv
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.core.safe.io import read_safetensors, sha256_file, write_safetensors
from ganinv.evaluation.open import open_model
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import load_generator
from ganinv.interop import bundle
from ganinv.interop.encoder import ENCODERS, build_encoder, close_heads
from ganinv.inversion.model import Model
from ganinv.task.image import Image
from tests.interop.models import TINY, model_of, stylegan2, tiny


@pytest.fixture()
def saved(tmp_path):
    """(model, its bundle, its generator's file)."""
    model = tiny()
    file = tmp_path / "g.safetensors"
    save_bundle(file, model.G, {}, half=False)
    model.G.source, model.G.sha256 = str(file), sha256_file(file)
    bundle.write(tmp_path / "m.safetensors", model, {"method": {"seed": 3}})
    return model, tmp_path / "m.safetensors", file


def test_three_lines(saved):
    model, path, _ = saved
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    loaded = ganinv.load(path)
    wp = loaded.encode(image)
    x_hat = loaded.render(wp)
    torch.testing.assert_close(wp, model.encode(image), rtol=0, atol=1e-5)
    torch.testing.assert_close(x_hat, model.render(wp), rtol=0, atol=1e-5)
    assert not wp.requires_grad and not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert open_model(path).config == {"method": {"seed": 3}}


def test_what_the_file_says(saved):
    model, path, file = saved
    tensors, metadata = read_safetensors(path)
    assert set(tensors) == {f"encoder.{key}" for key in model.E.state_dict()}
    assert metadata["generator"]["sha256"] == sha256_file(file)
    assert metadata["image"] == {
        "channels": 3, "height": 64, "width": 64, "colour": "RGB", "range": [-1, 1],
    }  # fmt: skip
    assert metadata["num_ws"] == 10 and metadata["versions"]["ganinv"] == ganinv.__version__
    assert metadata["config"] == {"method": {"seed": 3}}


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_every_encoder(tmp_path, kind):
    generator = stylegan2(64, shape=TINY)
    save_bundle(tmp_path / "g.safetensors", generator, {}, half=False)
    generator = load_generator(
        weights=str(tmp_path / "g.safetensors"), resolution=64, kind=None, origin=None
    )
    if kind.startswith("DomainGuided"):
        settings = {"num_ws": 10, "w_dim": 16, "input_size": 64, "input_nc": 3}
        settings |= {"channel_base": 4, "channel_max": 16}
        model = Model(
            encoder=ENCODERS[kind](**settings), generator=generator, architecture=settings,
            task=Image(), start_from_w_avg=False,
        ).freeze()  # fmt: skip
    else:
        model = model_of(kind, generator, trunk="ir_se_small")
    bundle.write(tmp_path / "m.safetensors", model)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    loaded = ganinv.load(tmp_path / "m.safetensors")
    torch.testing.assert_close(loaded.encode(image), model.encode(image), rtol=0, atol=1e-5)
    assert loaded.encode(image).shape == (2, 10, 16)


def test_restyle_refines(saved):
    """Each step reads the image beside what the codes so far give."""
    model = tiny("ReStyleEncoder")
    model.refinements = 2
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    wp = model.G.w_avg.expand(2, 10, -1)
    for _ in range(2):
        wp = wp + model.E(torch.cat([x, model.render(wp)], dim=1))
    torch.testing.assert_close(model.encode(x), wp)
    with pytest.raises(ValueError, match=r"expected \[B,3,64,64\] in \[-1,1\]"):
        model.encode(torch.cat([x, x], dim=1))


def test_closed_heads_say_what_the_stage_says():
    model = tiny()
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    at_stage = model.E(image, stage=3)
    assert not torch.equal(model.E(image), at_stage)
    close_heads(model.E, 3)
    assert torch.equal(model.E(image), at_stage)


def test_the_generator_is_looked_for_beside_the_bundle(saved, tmp_path):
    _, path, file = saved
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.rename(elsewhere / "m.safetensors")
    file.rename(elsewhere / "g.safetensors")
    ganinv.load(elsewhere / "m.safetensors")
    (elsewhere / "g.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(WeightsMissing, match="names the generator .*, which is not there.*--gener"):
        ganinv.load(elsewhere / "m.safetensors")
    ganinv.load(elsewhere / "m.safetensors", generator_weights=tmp_path / "moved.safetensors")
    save_bundle(tmp_path / "other.safetensors", stylegan2(64, shape=TINY), {})
    with pytest.raises(
        WeightsError, match="a generator with sha256 .*expected the one the encoder"
    ):
        ganinv.load(elsewhere / "m.safetensors", tmp_path / "other.safetensors")


def test_refusals(saved, tmp_path):
    model, path, file = saved
    with pytest.raises(ConfigError, match="of 64 px., which has no encoder from images to W"):
        ganinv.load(file)
    with pytest.raises(
        WeightsError, match="format='ganinv-generator'; expected format='ganinv-inv"
    ):
        bundle.load(file)
    with pytest.raises(WeightsMissing, match="no file .*gone.safetensors"):
        ganinv.load(tmp_path / "gone.safetensors")
    model.G.sha256 = None
    with pytest.raises(WeightsError, match="a generator that came from no file"):
        bundle.write(tmp_path / "n.safetensors", model)
    tensors, metadata = read_safetensors(path)

    def changed(words, edit, drop=()):
        mine = json.loads(json.dumps(metadata))
        edit(mine)
        left = {key: value for key, value in tensors.items() if key not in drop}
        write_safetensors(tmp_path / "changed.safetensors", left, mine)
        with pytest.raises(WeightsError, match=words):
            ganinv.load(tmp_path / "changed.safetensors")

    encoder = "encoder"
    changed("of class 'System'; expected one of", lambda t: t[encoder].update(kind="System"))
    changed("an unknown setting 'x'", lambda t: t[encoder]["architecture"].update(x=1))
    changed("settings that make no", lambda t: t[encoder]["architecture"].update(input_nc=10**9))
    changed("settings that make no", lambda t: t[encoder]["architecture"].update(trunk="other"))
    changed("for other codes", lambda t: t[encoder]["architecture"].update(num_ws=4))
    changed("with the task 'os.system' and", lambda t: t.update(task="os.system"))
    changed("the task 'Segmentation'", lambda t: t["task"].update(kind="Segmentation"))
    changed("of 3 channels for another task", lambda t: t["task"].update(kind="Sketch"))
    changed("of 3 channels for another task", lambda t: t.update(refinements=5))
    changed("generator=nothing; expected a mapping", lambda t: t.pop("generator"))
    changed("with no latlayer1.bias", lambda t: None, {"encoder.latlayer1.bias"})


def test_no_class_but_of_the_list():
    with pytest.raises(WeightsError, match="encoder of class 'os.system'; expected one of Gradual"):
        build_encoder("os.system", {}, {}, "a file")


def test_a_relative_generator_is_found_from_any_folder(tmp_path, monkeypatch):
    """What `generator.weights=weights/g.safetensors` meant where the training was started."""
    model = tiny()
    (tmp_path / "start/weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "start")
    save_bundle("weights/g.safetensors", model.G, {}, half=False)
    model.G.source = "weights/g.safetensors"
    model.G.sha256 = sha256_file("weights/g.safetensors")
    bundle.write(tmp_path / "m.safetensors", model)
    monkeypatch.chdir(tmp_path)
    assert ganinv.load("m.safetensors").G.sha256 == model.G.sha256


def test_a_file_of_the_same_name_beside_the_bundle_does_not_hide_the_right_one(saved, tmp_path):
    model, path, file = saved
    (tmp_path / "b").mkdir()
    (tmp_path / "b/m.safetensors").write_bytes(path.read_bytes())
    save_bundle(tmp_path / "b" / file.name, stylegan2(64, shape=TINY), {})
    assert ganinv.load(tmp_path / "b/m.safetensors").G.sha256 == model.G.sha256
