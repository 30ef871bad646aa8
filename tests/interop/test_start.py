"""encoder.weights: a training goes on from any trained encoder that fits, and from no other."""

import pytest
import torch

from ganinv.cli.main import main
from ganinv.config.build import build_method
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.core.safe.io import sha256_file
from ganinv.encoder.base_code import BaseCodeEncoder
from ganinv.evaluation.open import load_trained, open_model
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import load_generator
from ganinv.interop import bundle, official, plain
from ganinv.interop.feature import base_code
from ganinv.interop.start import start_from
from tests.golden_tools import case
from tests.interop.models import TINY, model_of, stylegan2, tiny
from tests.interop.test_plain import idinvert_model
from tests.runs import composed, overrides, run


def filled_from(path, like):
    """A fresh encoder of the same class and shape, started from the file."""
    fresh = type(like.E)(**like.architecture)
    start_from(fresh, str(path))
    for key, value in like.E.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


def test_every_file_of_an_encoder(tmp_path):
    small = tiny()
    save_bundle(tmp_path / "g.safetensors", small.G, {}, half=False)
    small.G.source, small.G.sha256 = "g.safetensors", sha256_file(tmp_path / "g.safetensors")
    bundle.write(tmp_path / "b.safetensors", small)
    filled_from(tmp_path / "b.safetensors", small)
    released = model_of("WEncoder", stylegan2(8))
    official.write(tmp_path / "w.pt", released, "psp")
    filled_from(tmp_path / "w.pt", released)
    first = idinvert_model()
    plain.write_genforce(tmp_path / "id", first)
    filled_from(tmp_path / "id/id_encoder.pth", first)


def test_bdinvert_s_released_encoder_and_what_import_makes_of_it(tmp_path):
    state = case("bdinvert_base_encoder_64_8").state()
    torch.save({"encoder": state}, tmp_path / "base.pth")
    assert main(["import", str(tmp_path / "base.pth"), "--out", str(tmp_path)]) == 0
    architecture, _ = base_code({"encoder": state})
    for name in ("base.pth", "base.safetensors"):
        encoder = BaseCodeEncoder(side=8, **architecture)
        start_from(encoder, str(tmp_path / name))
        found = encoder.state_dict()
        assert all(torch.equal(found[key], state[key]) for key in found)
        with pytest.raises(ConfigError, match="which gives f and no codes.*encoder.weights="):
            open_model(tmp_path / name)


def test_refusals(tmp_path):
    released = model_of("WEncoder", stylegan2(8))
    official.write(tmp_path / "w.pt", released, "psp")
    with pytest.raises(WeightsError, match="w.pt, a WEncoder; expected a Encoder4Editing.*choose"):
        start_from(tiny().E, str(tmp_path / "w.pt"))
    other = model_of("WEncoder", stylegan2(16), trunk="ir_se_small")
    before = {key: value.clone() for key, value in other.E.state_dict().items()}
    with pytest.raises(WeightsError, match="expected the tensors of the config's encoder"):
        start_from(other.E, str(tmp_path / "w.pt"))
    assert all(torch.equal(value, before[key]) for key, value in other.E.state_dict().items())
    with pytest.raises(WeightsMissing, match="encoder.weights=gone.pt, which is no file"):
        start_from(tiny().E, "gone.pt")
    save_bundle(tmp_path / "g.safetensors", stylegan2(8, shape=TINY), {})
    with pytest.raises(WeightsError, match="g.safetensors, in which no encoder was found"):
        start_from(tiny().E, str(tmp_path / "g.safetensors"))


def test_a_training_goes_on_from_a_checkpoint_and_its_own_is_opened_without_the_file(
    assets, tmp_path
):
    """The first run's encoder is where the second begins; its checkpoint then stands alone."""
    settings = overrides("psp", *assets)
    run([*settings, f"run_dir={tmp_path / 'a'}", "trainer.max_kimg=0.008"])
    first = tmp_path / "a/checkpoints/last.ckpt"
    started = [*settings, f"encoder.weights={first}"]
    cfg = composed(started)
    generator = load_generator(weights=str(assets[0]), resolution=64, kind=None, origin=None)
    encoder = build_method(cfg, generator).E
    for key, value in load_trained(first).method.E.state_dict().items():
        assert torch.equal(encoder.state_dict()[key], value), key
    run([*started, f"run_dir={tmp_path / 'b'}", "trainer.max_kimg=0.004"])
    first.rename(tmp_path / "moved.ckpt")
    assert load_trained(tmp_path / "b/checkpoints/last.ckpt").images_seen == 4
