"""`ganinv export` and `ganinv import`, from files to files."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import ganinv
from ganinv.core.safe.io import read_safetensors
from ganinv.evaluation.open import load_trained, open_model
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import load_discriminator, load_generator
from ganinv.interop import official
from ganinv.inversion.model import Model
from tests.cli.commands import ok, refused
from tests.generator.nvidia_files import content, dump
from tests.interop.models import TINY, model_of, stylegan2
from tests.interop.test_plain import idinvert_model
from tests.runs import ROOT, overrides, plain_overrides, run

# ------------------------------------------------------------------ a training checkpoint


def test_a_checkpoint_becomes_a_bundle(trained, tmp_path, capsys):
    checkpoint, generator = trained
    out = ok(
        capsys, "export", checkpoint, "--to", "safetensors", "--out", tmp_path / "m.safetensors"
    )
    assert (
        "Encoder4Editing trained by E4E, after 0.016 kimg, layers above 3 still equal to w" in out
    )
    loaded = ganinv.load(tmp_path / "m.safetensors")
    assert isinstance(loaded, Model)
    method = load_trained(checkpoint).method
    assert method.stage == 3 < method.G.num_ws - 1
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        wp = method.encode(image)
        torch.testing.assert_close(loaded.encode(image), wp, rtol=0, atol=1e-5)
        x_hat = method.model.render(wp, image.shape[-2:])
        torch.testing.assert_close(loaded.render(wp), x_hat, rtol=0, atol=1e-5)
    config = open_model(tmp_path / "m.safetensors").config
    assert config["method"]["_target_"] == "ganinv.method.e4e.E4E"
    assert loaded.G.sha256 == load_generator(
        weights=str(generator), resolution=64, kind=None, origin=None
    ).sha256  # fmt: skip


@pytest.mark.parametrize("method", ["psp", "restyle_psp", "restyle_e4e", "idinvert"])
def test_the_checkpoint_of_every_method(trained, tmp_path, capsys, method):
    """The bundle's codes are the method's."""
    checkpoint, generator = trained
    cache = generator.parent / "cache"
    run([*plain_overrides(method, generator, cache), f"run_dir={tmp_path / 'run'}",
         "trainer.max_kimg=0.008"])  # fmt: skip
    checkpoint, file = tmp_path / "run/checkpoints/last.ckpt", tmp_path / "m.safetensors"
    ok(capsys, "export", checkpoint, "--to", "safetensors", "--out", file)
    found, loaded = load_trained(checkpoint).method, ganinv.load(file)
    assert (loaded.refinements > 0) == method.startswith("restyle")
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        assert loaded.refinements == getattr(found, "refinements", 0)
        torch.testing.assert_close(loaded.encode(image), found.encode(image), rtol=0, atol=1e-5)


def test_an_encoder_of_maps_is_refused(trained, tmp_path, capsys):
    checkpoint, generator = trained
    run([*overrides("bdinvert", generator, generator.parent / "cache"),
         f"run_dir={tmp_path / 'run'}", "trainer.max_kimg=0.008"])  # fmt: skip
    words = "made by BDInvert, whose encoder does not lead from an image to wp"
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    refused(capsys, words, "export", checkpoint, "--to", "safetensors", "--out", tmp_path / "m")


def test_what_a_target_cannot_hold(trained, tmp_path, capsys):
    checkpoint, generator = trained
    out = tmp_path / "x"
    words = "the trunk ir_se_small; expected the trunk ir_se50: omertov/encoder4editing builds"
    refused(capsys, words, "export", checkpoint, "--to", "e4e", "--out", out)
    words = "--to psp, and a generator without an encoder"
    refused(capsys, words, "export", generator, "--to", "psp", "--out", out)
    words = "--to genforce, and a StyleGAN2Generator"
    refused(capsys, words, "export", checkpoint, "--to", "genforce", "--out", out)
    refused(
        capsys, "ends in .safetensors", "export", checkpoint, "--to", "safetensors", "--out", out
    )
    words = "--dataset-type with --to onnx"
    refused(capsys, words, "export", generator, "--to", "onnx", "--out", out, "--dataset-type", "x")
    assert not out.exists()
    out.mkdir()
    words = "which exists; expected a name that is free"
    refused(capsys, words, "export", checkpoint, "--to", "onnx", "--out", out)
    refused(capsys, "no file nowhere", "export", "nowhere", "--to", "onnx", "--out", tmp_path / "y")


def test_the_generator_of_a_checkpoint(trained, tmp_path, capsys):
    checkpoint, generator = trained
    ok(capsys, "export", checkpoint, "--to", "nvidia-state", "--out", tmp_path / "g.pt")
    ok(
        capsys,
        "export",
        tmp_path / "g.pt",
        "--to",
        "safetensors",
        "--out",
        tmp_path / "g.safetensors",
    )
    mine = load_generator(weights=str(generator), resolution=64, kind=None, origin=None)
    back = load_generator(
        weights=str(tmp_path / "g.safetensors"), resolution=64, kind=None, origin=None
    )
    assert back.architecture == mine.architecture
    for key, value in mine.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


def test_the_graph_of_a_generator(tmp_path, capsys):
    save_bundle(tmp_path / "g.safetensors", stylegan2(8, shape=TINY), {})
    out = tmp_path / "graphs"
    assert "generator.pt2" in ok(
        capsys, "export", tmp_path / "g.safetensors", "--to", "torch-export", "--out", out
    )
    assert [path.name for path in out.iterdir()] == ["generator.pt2"]


# ------------------------------------------------------------------ import


def test_an_official_checkpoint_there_and_back(tmp_path, capsys):
    """Import into a folder, export again: the same bytes of every tensor."""
    official.write(tmp_path / "mine.pt", model_of("WEncoder", stylegan2(8)), "psp")
    out = ok(capsys, "import", tmp_path / "mine.pt", "--out", tmp_path / "w")
    assert "StyleGAN2Generator of 8 px, num_ws 4" in out and "WEncoder for 256 x 256 px" in out
    bundle = tmp_path / "w/mine.safetensors"
    _, metadata = read_safetensors(bundle)
    assert metadata["generator"]["source"] == "mine-generator.safetensors"
    ok(capsys, "export", bundle, "--to", "psp", "--out", tmp_path / "again.pt")
    ok(capsys, "export", tmp_path / "mine.pt", "--to", "psp", "--out", tmp_path / "direct.pt")
    first, *others = (
        torch.load(tmp_path / name, weights_only=True)
        for name in ("mine.pt", "again.pt", "direct.pt")
    )
    for second in others:
        assert list(first["state_dict"]) == list(second["state_dict"])
        assert all(torch.equal(v, second["state_dict"][k]) for k, v in first["state_dict"].items())
        assert torch.equal(first["latent_avg"], second["latent_avg"])
    words = "mine.safetensors, which exists"
    refused(capsys, words, "import", tmp_path / "mine.pt", "--out", tmp_path / "w")


def test_a_church_stays_a_church(tmp_path, capsys):
    """Through a bundle and directly: opts.dataset_type is what the file said."""
    model = model_of("WEncoder", stylegan2(8))
    official.write(tmp_path / "church.pt", model, "e4e", "church_encode")
    ok(capsys, "import", tmp_path / "church.pt", "--out", tmp_path / "w")
    for name, source in (("a.pt", "church.pt"), ("b.pt", "w/church.safetensors")):
        ok(capsys, "export", tmp_path / source, "--to", "e4e", "--out", tmp_path / name)
        opts = torch.load(tmp_path / name, weights_only=True)["opts"]
        assert opts["dataset_type"] == "church_encode"


def test_nvidia_s_pickle(tmp_path, capsys):
    generator = stylegan2(16, shape=TINY, clamp=256)
    (tmp_path / "g.pkl").write_bytes(dump(content(generator)))
    out = ok(capsys, "import", tmp_path / "g.pkl", "--out", tmp_path)
    assert "StyleGAN2Generator of 16 px, num_ws 6, w_dim 16" in out
    back = load_generator(
        weights=str(tmp_path / "g.safetensors"), resolution=16, kind=None, origin=None
    )
    for key, value in generator.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key  # float32, as in the file


def test_a_discriminator_travels_along(trained, tmp_path, capsys):
    from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
    from ganinv.generator.importer import rosinality

    generator = stylegan2(16, shape=TINY)
    critic = StyleGAN2Discriminator(
        c_dim=0, resolution=16, img_channels=3, channel_base=128, channel_max=8, conv_clamp=None,
        mbstd_group_size=4,
    )  # fmt: skip
    file = {"g_ema": rosinality.export_state(generator), "latent_avg": generator.w_avg}
    file["d"] = rosinality.export_discriminator(critic.state_dict(), 16)
    torch.save(file, tmp_path / "gan.pt")
    out = ok(capsys, "import", tmp_path / "gan.pt", "--out", tmp_path)
    assert "with its discriminator" in out
    weights = load_discriminator(weights=str(tmp_path / "gan.safetensors"), origin=None)
    for key, value in critic.state_dict().items():
        assert torch.equal(weights.state[key], value), key


def test_idinvert_s_pair(tmp_path, capsys):
    from ganinv.interop import plain

    plain.write_genforce(tmp_path / "mine", idinvert_model())
    encoder, generator = (
        tmp_path / "mine" / f"mine_{part}.pth" for part in ("encoder", "generator")
    )
    refused(capsys, "its generator beside it", "import", encoder, "--out", tmp_path)
    ok(capsys, "import", encoder, "--generator", generator, "--out", tmp_path)
    assert ganinv.load(tmp_path / "mine_encoder.safetensors").kind == "DomainGuidedEncoder"
    ok(capsys, "export", tmp_path / "mine_encoder.safetensors", "--to", "genforce", "--out",
       tmp_path / "again")  # fmt: skip
    for part in ("encoder", "generator"):
        first = torch.load(tmp_path / f"mine/mine_{part}.pth", weights_only=True)
        second = torch.load(tmp_path / f"again/again_{part}.pth", weights_only=True)
        assert set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)


def test_boundaries(tmp_path, capsys):
    rows = np.random.default_rng(0).standard_normal((1, 14, 512))
    np.save(tmp_path / "age.npy", rows)
    out = ok(capsys, "import", tmp_path / "age.npy", "--out", tmp_path)
    assert "a boundary, 1x14x512, all layers" in out
    tensors, metadata = read_safetensors(tmp_path / "age.safetensors")
    assert metadata["format"] == "ganinv-boundary" and metadata["layers"] is None
    assert np.array_equal(tensors["boundary"].numpy(), rows.astype(np.float32))


def test_feature_networks(tmp_path, capsys):
    from tests.golden_tools import case
    from tests.interop.test_feature import moco_file

    torch.save(moco_file(), tmp_path / "moco.pth.tar")
    assert "MoCo's ResNet-50" in ok(capsys, "import", tmp_path / "moco.pth.tar", "--out", tmp_path)
    assert "conv1.weight" in torch.load(tmp_path / "moco_v2_resnet50.pth", weights_only=True)
    torch.save({"encoder": case("bdinvert_base_encoder_64_8").state()}, tmp_path / "base.pth")
    assert "base-code encoder" in ok(capsys, "import", tmp_path / "base.pth", "--out", tmp_path)
    _, metadata = read_safetensors(tmp_path / "base.safetensors")
    assert metadata["kind"] == "BaseCodeEncoder" and metadata["architecture"]["input_nc"] == 3


def test_what_is_not_imported(trained, tmp_path, capsys):
    checkpoint, generator = trained
    refused(capsys, "a checkpoint of ganinv", "import", checkpoint, "--out", tmp_path)
    refused(capsys, "need no import", "import", generator, "--out", tmp_path)
    refused(capsys, "no file nowhere", "import", "nowhere", "--out", tmp_path)
    torch.save({"epoch": 1}, tmp_path / "odd.pt")
    refused(capsys, "entries ['epoch']", "import", tmp_path / "odd.pt", "--out", tmp_path)
    torch.save([1], tmp_path / "list.pt")
    refused(capsys, "holds a list", "import", tmp_path / "list.pt", "--out", tmp_path)
    (tmp_path / "text.pt").write_text("hello")
    refused(capsys, "text.pt", "import", tmp_path / "text.pt", "--out", tmp_path)


def test_a_gan_s_checkpoint_gives_its_average(tmp_path, capsys):
    folder = tmp_path / "gan"
    run([*overrides("gan", tmp_path, tmp_path / "cache"), f"run_dir={folder}",
         "trainer.max_kimg=0.008"])  # fmt: skip
    checkpoint = folder / "checkpoints/last.ckpt"
    ok(capsys, "export", checkpoint, "--to", "safetensors", "--out", tmp_path / "g.safetensors")
    back = load_generator(
        weights=str(tmp_path / "g.safetensors"), resolution=64, kind=None, origin=None
    )
    average = load_trained(checkpoint).method.G_ema
    for key, value in average.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


def test_save_bundle_still_writes_half(tmp_path):
    save_bundle(tmp_path / "h.safetensors", stylegan2(16, shape=TINY), {})
    tensors, metadata = read_safetensors(tmp_path / "h.safetensors")
    assert tensors["G.mapping.fc0.weight"].dtype == torch.float16 and json.dumps(metadata)


def test_help_needs_no_torch():
    """`ganinv --help` answers at once."""
    code = "import sys; from ganinv.cli.main import build_parser; build_parser(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
