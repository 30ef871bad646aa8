"""What an encoder starts from: the builder loads it, at the beginning of a training only."""

from __future__ import annotations

import inspect
import logging

import pytest
import torch

from ganinv.backbone.resnet34 import ResNet34Trunk
from ganinv.config.build import build_method
from ganinv.config.check import check_config
from ganinv.config.start import check_start
from ganinv.config.start_encoder import start_encoder
from ganinv.config.stored import StoredConfig
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.encoder.psp import GradualStyleEncoder
from ganinv.encoder.restyle import ReStyleEncoder
from ganinv.evaluation.open import load_trained, open_model
from ganinv.generator.importer.load import load_generator
from ganinv.interop.encoder import ENCODERS, build_encoder
from tests.encoder.test_shapes import small, small_face_file
from tests.interop.models import tiny
from tests.runs import composed, overrides, run
from train import train

FFHQ = ["generator=stylegan2_ffhq1024", "dataset=ffhq256", "trainer.max_kimg=1"]


@pytest.mark.parametrize("kind", ENCODERS.values(), ids=lambda kind: kind.__name__)
def test_no_constructor_is_told_of_a_file(kind) -> None:
    names = set(inspect.signature(kind.__init__).parameters)
    assert not {name for name in names if "weights" in name or "path" in name}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], r"model_ir_se50.pth is not in .*pixel2style2pixel.*encoder.trunk_weights=null"),
        (["encoder.trunk_weights=/no/t.pth"], r"t.pth is not in /no"),
        (["encoder=restyle_psp_resnet34"], r"resnet34-b627a593.pth is not in"),
        (["encoder.weights=/no/e.ckpt"], r"encoder.weights=/no/e.ckpt, which is no file"),
    ],
)
def test_a_missing_file_is_told_before_anything_is_read(words, said, tmp_path, monkeypatch) -> None:
    """Neither the generator nor the data are there either."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    method = "restyle_psp" if "restyle" in str(words) else "psp"
    with pytest.raises(WeightsMissing, match=said):
        train(composed([*FFHQ, f"method={method}", *words, f"runs={tmp_path}"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=idinvert", "encoder.weights=x.pt", "encoder.init_std_scale=0.1"],
         "encoder.weights with encoder.init_std_scale; expected one of them"),
        (["+encoder.init_std_scale=0.1"],
         "encoder.init_std_scale=0.1 with GradualStyleEncoder; expected an encoder that ends"),
        (["method=idinvert", "+encoder.trunk_weights=x.pth"],
         "encoder.trunk_weights with DomainGuidedEncoder, which has no trunk"),
    ],
)  # fmt: skip
def test_a_start_that_an_encoder_does_not_have(words, said) -> None:
    with pytest.raises(ConfigError, match=said):
        check_start(composed(words))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("encoder.weights=3", "encoder.weights=3; expected text or null"),
        ("encoder.trunk_weights=3", "encoder.trunk_weights=3; expected text or null"),
        ("encoder.init_std_scale=-1", "encoder.init_std_scale=-1; expected a number above 0"),
    ],
)
def test_their_values_are_checked(word, said) -> None:
    method = "idinvert" if "init" in word else "psp"
    with pytest.raises(ConfigError, match=said):
        check_config(composed([f"method={method}", word]))


def test_a_trunk_is_filled_and_a_random_one_is_announced(tmp_path, caplog) -> None:
    state = small_face_file(tmp_path / "trunk.pth")
    for kind, channels in ((GradualStyleEncoder, 3), (ReStyleEncoder, 6)):
        encoder = small(kind, input_nc=channels)
        start_encoder(encoder, None, trunk_weights=str(tmp_path / "trunk.pth"))
        own = encoder.state_dict()
        assert torch.equal(own["body.0.res_layer.1.weight"], state["body.0.res_layer.1.weight"])
        first = own["input_layer.0.weight"][:, :3]
        assert torch.equal(first, state["input_layer.0.weight"])
    assert "random weights" not in caplog.text
    with caplog.at_level(logging.WARNING):
        start_encoder(small(GradualStyleEncoder), None)
    assert "trunk: random weights (encoder.trunk_weights=null)" in caplog.text
    assert issubclass(ENCODERS["ReStyleResNetEncoder"], ResNet34Trunk)


def test_a_checkpoint_needs_no_file_that_its_training_started_from(
    assets, tmp_path, caplog
) -> None:
    small_face_file(tmp_path / "trunk.pth")
    settings = [*overrides("psp", *assets), f"encoder.trunk_weights={tmp_path / 'trunk.pth'}"]
    settings.append(f"run_dir={tmp_path / 'a'}")
    run([*settings, "trainer.max_kimg=0.004"])
    (tmp_path / "trunk.pth").unlink()
    last = tmp_path / "a/checkpoints/last.ckpt"
    caplog.clear()
    assert load_trained(last).images_seen == 4
    model = open_model(last).model
    assert "trunk_weights" not in model.architecture and "weights" not in model.architecture
    run([*settings, f"resume={last}", "trainer.max_kimg=0.008"])
    assert load_trained(last).images_seen == 8
    assert "random weights" not in caplog.text
    with pytest.raises(WeightsMissing, match="trunk.pth is not in"):
        run([*settings[:-1], f"run_dir={tmp_path / 'b'}"])


def test_files_of_before_are_read(assets, tmp_path) -> None:
    """Checkpoints whose method held init_std_scale; bundles that named trunk_weights."""
    cfg = composed(overrides("idinvert", *assets))
    generator = load_generator(weights=str(assets[0]), resolution=64, kind=None, origin=None)
    stored = build_method(cfg, generator).provenance["config"]
    stored["encoder"].pop("init_std_scale")
    stored["method"]["init_std_scale"] = 0.3
    build_method(StoredConfig(stored, "old.ckpt"), generator, training=False)
    stored["method"]["init_std_scale"] = "large"
    with pytest.raises(WeightsError, match="method.init_std_scale"):
        build_method(StoredConfig(stored, "old.ckpt"), generator, training=False)
    model = tiny()
    old = model.architecture | {"trunk_weights": None}
    again = build_encoder(type(model.E).__name__, old, model.E.state_dict(), "an old bundle")
    assert type(again) is type(model.E)
