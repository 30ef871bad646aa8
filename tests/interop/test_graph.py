"""ONNX and torch.export: the same numbers as the model for any batch, and what the files say."""

import json

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.interop import graph
from tests.generator.test_stylegan import TINY as STYLEGAN
from tests.generator.test_stylegan3 import tiny as stylegan3
from tests.interop.models import TINY, model_of, stylegan2, tiny

BATCHES = (1, 2, 5)
FACTS = {"image", "num_ws", "w_dim", "generator", "versions", "graph", "takes", "gives"}


def small(kind, resolution=16):
    return model_of(kind, stylegan2(resolution, shape=TINY), trunk="ir_se_small")


def images(count):
    return torch.rand(count, 3, 64, 64) * 2 - 1


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory):
    torch.manual_seed(0)
    model = small("GradualStyleEncoder")
    folder = tmp_path_factory.mktemp("onnx")
    paths = graph.write_onnx(folder, model)
    assert [path.name for path in paths] == ["encoder.onnx", "generator.onnx", "inverter.onnx"]
    assert sorted(folder.iterdir()) == paths  # weights inside
    return model, folder


def session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def test_onnx_parity(onnx_files):
    model, folder = onnx_files
    encoder, generator, both = (
        session(folder / f"{name}.onnx") for name in ("encoder", "generator", "inverter")
    )
    for batch in BATCHES:
        image = images(batch)
        wp, x_hat = model(image)
        found = encoder.run(["wp"], {"image": image.numpy()})
        found += generator.run(["image"], {"wp": wp.numpy()})
        found += both.run(["wp", "reconstruction"], {"image": image.numpy()})
        for mine, theirs in zip((wp, x_hat, wp, x_hat), found, strict=True):
            assert (mine - torch.from_numpy(theirs)).abs().max() <= 1e-5
        assert wp.std() > 0.01 and x_hat.std() > 0.1


def test_onnx_says_what_it_takes(onnx_files):
    _, folder = onnx_files
    meta = session(folder / "inverter.onnx").get_modelmeta().custom_metadata_map
    metadata = {key.removeprefix("ganinv."): json.loads(value) for key, value in meta.items()}
    assert FACTS <= set(metadata)
    assert metadata["image"] == {
        "channels": 3, "height": 64, "width": 64, "colour": "RGB", "range": [-1, 1],
    }  # fmt: skip
    assert metadata["num_ws"] == 6 and metadata["generator"]["resolution"] == 16
    (taken,) = session(folder / "encoder.onnx").get_inputs()
    assert taken.name == "image" and taken.shape[1:] == [3, 64, 64]
    assert taken.shape[0] == "batch"  # a name: any batch


@torch.inference_mode()
def test_torch_export_parity(tmp_path):
    with torch.inference_mode(False):
        model = small("WEncoder")
        paths = graph.write_programs(tmp_path, model)
    assert [path.name for path in paths] == ["encoder.pt2", "generator.pt2", "inverter.pt2"]
    extra = {"ganinv.json": ""}
    both = torch.export.load(tmp_path / "inverter.pt2", extra_files=extra).module()
    encoder = torch.export.load(tmp_path / "encoder.pt2").module()
    generator = torch.export.load(tmp_path / "generator.pt2").module()
    for batch in BATCHES:
        image = images(batch)
        wp, x_hat = model(image)
        for mine, theirs in zip((wp, x_hat), both(image), strict=True):
            assert (mine - theirs).abs().max() <= 1e-5
        assert (encoder(image) - wp).abs().max() <= 1e-5
        assert (generator(wp) - x_hat).abs().max() <= 1e-5
    assert json.loads(json.loads(extra["ganinv.json"])["ganinv.num_ws"]) == 6


OTHERS = {
    "stylegan": lambda: StyleGANGenerator(**STYLEGAN),
    "stylegan3_t": stylegan3,
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", OTHERS)
@torch.inference_mode()
def test_every_generator_alone(tmp_path, name):
    with torch.inference_mode(False):
        generator = OTHERS[name]().eval()
        (path,) = graph.write_onnx(tmp_path, generator)
        (program,) = graph.write_programs(tmp_path, generator)
    assert (path.name, program.name) == ("generator.onnx", "generator.pt2")
    run, call = session(path).run, torch.export.load(program).module()
    for batch in BATCHES:
        wp = torch.randn(batch, generator.num_ws, generator.w_dim)
        expected = generator.synthesis(wp, noise="const")
        (found,) = run(None, {"wp": wp.numpy()})
        assert (torch.from_numpy(found) - expected).abs().max() <= 1e-5
        assert (call(wp) - expected).abs().max() <= 1e-5


@pytest.mark.nightly
@torch.inference_mode()
def test_restyle_s_passes_in_one_graph():
    with torch.inference_mode(False):
        model = small("ReStyleEncoder4Editing", resolution=8)
        model.steps = 2
        program = graph.graphs(model)[2].program().module()
    for batch in BATCHES:
        image = images(batch)
        wp, x_hat = model(image)
        for mine, theirs in zip((wp, x_hat), program(image), strict=True):
            assert (mine - theirs).abs().max() <= 1e-5


def test_onnx_needs_its_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(
        ConfigError, match="--to onnx without the package onnxscript; .*ganinv.onnx"
    ):
        graph.write_onnx(tmp_path, tiny())
