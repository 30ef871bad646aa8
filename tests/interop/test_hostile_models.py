"""Every file that may hold a model or a part of one, its fields replaced by values of wrong types
and sizes: read or refused in one sentence, within 2 s and 1 GB, by each of its readers."""

import argparse
import copy
import functools

import pytest
import torch

from ganinv.backbone.efficientnet_lite0 import efficientnet_lite0
from ganinv.backbone.irse import PLANS, Trunk, arcface, load_trunk
from ganinv.backbone.moco import moco_resnet50
from ganinv.backbone.probe import Head, Look, read_heads, write_probe
from ganinv.backbone.vgg16 import vgg16_caffe
from ganinv.cli import import_
from ganinv.core.direction import Direction, write_directions
from ganinv.core.errors import USER_ERRORS
from ganinv.core.safe.io import load_tensors, sha256_file, write_safetensors
from ganinv.discriminator.stylegan import StyleGANDiscriminator
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.editing.boundary import read_boundary
from ganinv.editing.direction import read_directions
from ganinv.encoder.base_code import BaseCodeEncoder
from ganinv.encoder.idinvert import DomainGuidedEncoder
from ganinv.evaluation.open import open_model
from ganinv.generator.importer import genforce, rosinality
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import find_discriminator, load_generator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.interop import bundle, imported
from ganinv.interop import task as tasks
from ganinv.interop.start import start_from
from ganinv.inversion.bdinvert import base_code_encoder
from ganinv.inversion.model import Model
from tests.core.safe.hostile import (
    PLAIN,
    TENSORS,
    assert_bounded,
    changed,
    deep,
    header_changed,
    metadata_changed,
    nested,
    torch_bytes,
    written,
)
from tests.generator.nvidia_files import Record, content, dump

SMALL = {
    "z_dim": 4, "c_dim": 0, "w_dim": 4, "resolution": 8, "img_channels": 3, "mapping_layers": 2,
    "channel_base": 32, "channel_max": 4, "conv_clamp": None,
}  # fmt: skip
FIRST = {
    "z_dim": 4, "w_dim": 4, "resolution": 8, "img_channels": 3, "mapping_layers": 2,
    "layerwise": True, "channel_base": 32, "channel_max": 4, "final_tanh": True,
}  # fmt: skip
DISCRIMINATORS = {kind.__name__: kind for kind in (StyleGAN2Discriminator, StyleGANDiscriminator)}
KEYS = ("\x1b[2Jx", "a\nb", "k" * 5000, "\ud800", "styles.\u00b2.x", "block\u00b2.conv.weight")


def as_generator(path):
    load_generator(weights=str(path), resolution=None, kind=None, origin=None)


def as_discriminator(path):
    found = find_discriminator(weights=str(path), origin=None)
    if found is not None:
        found.build(DISCRIMINATORS[found.kind])


def as_import(path, generator=None):
    out = path.parent / "imported" / path.stem
    import_.run(argparse.Namespace(file=path, out=out, generator=generator))


def as_start(path):
    start_from(small_encoder(), str(path))


def as_base_code(path):
    base_code_encoder(str(path), StyleGAN2Generator(**SMALL))


def small_encoder():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return DomainGuidedEncoder(**ARCHITECTURE)


ARCHITECTURE = {
    "num_ws": 4, "w_dim": 4, "input_size": 8, "input_nc": 3, "channel_base": 2, "channel_max": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A generator's bundle with its discriminator, and an encoder's bundle beside it."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**SMALL)
    shape = {k: SMALL[k] for k in ("c_dim", "resolution", "img_channels", "channel_base",
                                   "channel_max", "conv_clamp")}  # fmt: skip
    critic = StyleGAN2Discriminator(mbstd_group_size=1, **shape)
    save_bundle(folder / "g.safetensors", generator, {"kimg": 1}, critic, half=False)
    generator.source, generator.sha256 = "g.safetensors", sha256_file(folder / "g.safetensors")
    model = Model(encoder=small_encoder(), generator=generator, task=tasks.of_channels(3),
                  start_from_w_avg=False, architecture=ARCHITECTURE)  # fmt: skip
    bundle.write(folder / "e.safetensors", model, {"method": {"_target_": "x"}})
    open_model(folder / "e.safetensors")
    return folder


def test_an_encoder_s_bundle(tmp_path, folder):
    good = (folder / "e.safetensors").read_bytes()
    (tmp_path / "g.safetensors").symlink_to(folder / "g.safetensors")
    used = ("format", "encoder", "start_from_w_avg", "task", "refinements", "generator")
    files = [*metadata_changed(good, used), *header_changed(good)]
    paths = written(tmp_path, files, ".safetensors")
    assert_bounded(paths[::2], open_model)  # each field still gets a dozen values
    assert_bounded(paths[1::8], as_start, bundle.load, read_boundary)


def test_a_generator_s_bundle_with_its_discriminator(tmp_path, folder):
    good = (folder / "g.safetensors").read_bytes()
    used = ("format", "kind", "architecture", "discriminator", "discriminator_kind")
    files = [*metadata_changed(good, used), *header_changed(good)]
    paths = written(tmp_path, files, ".safetensors")
    assert_bounded(paths[::2], as_discriminator)
    assert_bounded(paths[1::4], open_model)
    assert_bounded(paths[1::16], as_start)


def test_a_boundary_and_a_base_code_as_import_writes_them(tmp_path):
    write_safetensors(tmp_path / "b", {"boundary": torch.ones(1, 4)},
                      {"format": "ganinv-boundary", "layers": [0, 1], "source": "x"})  # fmt: skip
    write_safetensors(tmp_path / "f", {"x": torch.ones(1, 4)},
                      {"format": "ganinv-encoder", "kind": "x", "architecture": {}})  # fmt: skip
    for name in ("b", "f"):
        good = (tmp_path / name).read_bytes()
        (tmp_path / f"{name}s").mkdir()
        files = [*metadata_changed(good), *header_changed(good)]
        paths = written(tmp_path / f"{name}s", files, ".safetensors")
        assert_bounded(paths[::2], read_boundary)
        assert_bounded(paths[1::4], as_start, open_model)


def test_directions_and_probes_as_fit_writes_them(tmp_path):
    one = Direction("a", torch.ones(1, 4), (0, 1), 2.0, torch.ones(1), "ab", {"method": "x"})
    write_directions(tmp_path / "d", [one])
    look, heads = Look("efficientnet_lite0", (1, 2), 8, (64, 64)), [Head("a", "number", 0.9)]
    write_probe(tmp_path / "p", look, heads, torch.ones(1, 4), torch.ones(1))
    for name, reader in (("d", read_directions), ("p", read_heads)):
        good = (tmp_path / name).read_bytes()
        (tmp_path / f"{name}s").mkdir()
        files = [*metadata_changed(good), *header_changed(good)]
        assert_bounded(written(tmp_path / f"{name}s", files, ".safetensors")[::2], reader)


def test_directions(tmp_path):
    values = [*TENSORS, torch.ones(1, 4), torch.ones(1, 3, 4), torch.ones(4).long(), nested(),
              torch.full((1, 4), float("inf")), {"a": 1}, deep(30)]  # fmt: skip
    paths = written(
        tmp_path, [torch_bytes(value, old) for value in values for old in (0, 1)], ".pt"
    )
    assert_bounded(paths, read_boundary, read_directions, as_import, open_model)


def test_genforce_s_generator_discriminator_and_encoder(tmp_path, folder):
    torch.manual_seed(0)
    generator = StyleGANGenerator(**FIRST)
    values = [*PLAIN[:8], *TENSORS, nested()]
    layouts = [genforce.export_state(generator, name) for name in ("idinvert", "genforce")]
    critic = StyleGANDiscriminator(resolution=8, img_channels=3, channel_base=32, channel_max=4,
                                   mbstd_group_size=1)  # fmt: skip
    state = genforce.export_discriminator(critic.state_dict(), 8)
    whole = {"generator_smooth": layouts[1], "discriminator": state}
    find = written(tmp_path, [torch_bytes(whole)], ".pth")
    as_generator(find[0]), as_discriminator(find[0])
    many = [c for layout in layouts for c in changed(layout, values, 2)]
    many += [{**layouts[0], key: torch.ones(1)} for key in KEYS]
    many += changed({"models": whole}, values, 1)
    paths = written(tmp_path, map(torch_bytes, many), ".pth")
    assert_bounded(paths[::4], as_generator)
    assert_bounded(paths[1::16], as_discriminator, as_import, open_model)
    (tmp_path / "e").mkdir()
    encoder = small_encoder().state_dict()
    extra = [{**encoder, key: torch.ones(1)} for key in KEYS]
    files = map(torch_bytes, [encoder, *changed(encoder, values, 2), *extra])
    paths = written(tmp_path / "e", files, ".pth")
    beside = functools.partial(open_model, generator=folder / "g.safetensors")
    assert_bounded(paths[::3], beside)
    assert_bounded(
        paths[::4], as_start, functools.partial(as_import, generator=folder / "g.safetensors")
    )


def official_content():
    """As pSp's trainers write it, all but the encoder's body."""
    decoder = rosinality.export_state(StyleGAN2Generator(**SMALL))
    state = {f"decoder.{key}": value for key, value in decoder.items()}
    state["encoder.input_layer.0.weight"] = torch.zeros(4, 3, 3, 3)
    state["encoder.styles.0.linear.weight"] = torch.zeros(4, 4)
    return {"state_dict": state, "latent_avg": torch.zeros(4),
            "opts": {"encoder_type": "Encoder4Editing", "dataset_type": "cars_encode",
                     "start_from_latent_avg": True, "n_iters_per_batch": 5}}  # fmt: skip


def as_official(path):
    imported.read(load_tensors(path))


@pytest.mark.parametrize("legacy", [False, True])
def test_released_encoders(tmp_path, legacy):
    good = official_content()
    many = [*changed(good, [*PLAIN[:10], *TENSORS, nested()], 2)]
    for key in KEYS:
        for prefix in ("", "encoder.", "decoder.", "hypernet."):
            state = {**good["state_dict"], prefix + key: torch.ones(1)}
            many.append({**good, "state_dict": state})
    for kind in ("ResNetBackboneEncoder", "BackboneEncoder", "x", nested(), 7):
        opts = {"encoder_type": kind, "n_iters_per_batch": 1 << 40, "dataset_type": nested()}
        many.append({**good, "opts": opts})
    many.append(
        {**good, "state_dict": {**good["state_dict"], "encoder.x": torch.zeros(0, 1 << 39)}}
    )
    many = [c for c in many if isinstance(c, dict) and isinstance(c.get("state_dict"), dict)]
    paths = written(tmp_path, [torch_bytes(c, legacy) for c in many[legacy::3]], ".pt")
    assert_bounded(paths, as_official)
    assert_bounded(paths[::7], open_model, as_import, as_start, as_generator)


def test_hyperstyle(tmp_path):
    good = official_content()
    state = {**good["state_dict"], "hypernet.input_layer.0.weight": torch.zeros(1)}
    torch.save({**good, "state_dict": state}, tmp_path / "h.pt")
    for reader in (as_official, open_model, as_import):
        with pytest.raises(USER_ERRORS, match="with a hypernetwork .HyperStyle., which changes"):
            reader(tmp_path / "h.pt")


def as_trunk(path):
    trunk = Trunk(PLANS["ir_se_small"], 6)
    trunk.rgb_first = True
    load_trunk(trunk, str(path))


def test_feature_networks(tmp_path):
    weight = torch.zeros(64, 3, 3, 3)
    marks = {"input_layer.0.weight": weight, "output_layer.3.weight": torch.zeros(2, 2)}
    query = {"state_dict": {"module.encoder_q.conv1.weight": weight, "module.encoder_k.x": weight}}
    values = [*PLAIN[:8], *TENSORS, nested()]
    many = [*changed(marks, values), *changed(query, values)]
    many += [{**marks, key: weight} for key in KEYS]
    many += [{"state_dict": {**query["state_dict"], key: weight}} for key in (*KEYS, 7)]
    paths = written(tmp_path, map(torch_bytes, many), ".pth")
    assert_bounded(paths[::2], as_import)
    assert_bounded(paths[1::4], as_trunk)
    for start, build in enumerate((arcface, moco_resnet50, vgg16_caffe, efficientnet_lite0)):
        assert_bounded(paths[start::20], functools.partial(built, build=build))


def built(path, build):
    build(weights=str(path))


def test_base_code_encoders(tmp_path):
    encoder = BaseCodeEncoder(side=8, channels=4, input_nc=3, channel_base=4, channel_max=4)
    state = encoder.state_dict()
    values = [*PLAIN[:8], *TENSORS, nested(), torch.zeros(0, 1 << 30, 1, 1)]
    many = [*changed({"encoder": state}, values, 2)]
    many += [{"encoder": {**state, key: torch.ones(1)}} for key in (*KEYS, "model.x.weight", 7)]
    paths = written(tmp_path, map(torch_bytes, many), ".pth")
    assert_bounded(paths[::2], as_import)
    assert_bounded(paths[1::2], as_start)
    node = {"_target_": "ganinv.encoder.base_code.BaseCodeEncoder", "side": 8, "channels": 4,
            "input_nc": 3, "channel_base": 4, "channel_max": 4}  # fmt: skip
    ours = {"ganinv": {"config": {"encoder": node}, "generator_sha256": "0" * 64},
            "state_dict": {f"E.{key}": value for key, value in state.items()}}  # fmt: skip
    (tmp_path / "c").mkdir()
    contents = map(torch_bytes, changed(ours, [*PLAIN, nested()], 2))
    paths = written(tmp_path / "c", contents, ".ckpt")
    assert_bounded(paths[::3], as_base_code)
    assert_bounded(paths[1::9], as_start, open_model)


def test_fields_within_nvidia_s_pickles(tmp_path):
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**SMALL)
    values = [None, True, -1, 0, 1.5, 10**5, 10**6, 1 << 62, float("nan"), "", "x", "\x1b[2J", [],
              {}, (), [1, 3, 3, 1], nested(), torch.zeros(())]  # fmt: skip
    attributes = ("_init_args", "_init_kwargs", "conv_clamp", "_modules", "_parameters", "_buffers",
                  "_non_persistent_buffers_set", "_parameters.x", "_modules.x")  # fmt: skip
    base = content(generator)["G_ema"].meta
    files = []
    for value in values:
        for key in (*base["state"]["_init_kwargs"], "x", "num_layers", "channel_base"):
            meta = copy.copy(base)
            arguments = {**base["state"]["_init_kwargs"], key: value}
            meta["state"] = {**base["state"], "_init_kwargs": arguments}
            files.append(dump({"G_ema": recorded(meta)}))
        for name in attributes:
            meta, (outer, _, inner) = copy.copy(base), name.partition(".")
            part = {**base["state"][outer], inner: value} if inner else value
            meta["state"] = {**base["state"], outer: part}
            files.append(dump({"G_ema": recorded(meta), "D": recorded(meta)}))
        for key in ("type", "version", "class_name", "state"):
            files.append(dump({"G_ema": recorded({**base, key: value})}))
        files.append(dump({"G_ema": value, "D": value}))
    for part, key in (("_buffers", k) for k in KEYS[:3]):
        state = {**base["state"], part: {**base["state"][part], key: torch.ones(1)}}
        files.append(dump({"G_ema": recorded({**base, "state": state})}))
    paths = written(tmp_path, files, ".pkl")
    assert_bounded(paths[::3], as_generator)
    assert_bounded(paths[1::12], as_discriminator, open_model, as_import)


def recorded(meta):
    """A record of a module with these words."""
    found = Record("", {})
    found.meta = meta
    return found


def test_a_discriminator_that_cannot_be_read_is_told_of(tmp_path, capsys):
    good = {"g_ema": rosinality.export_state(StyleGAN2Generator(**SMALL)),
            "latent_avg": torch.zeros(4), "d": {"convs.0.0.weight\x1b[2J": nested()}}  # fmt: skip
    torch.save(good, tmp_path / "x.pt")
    with pytest.raises(USER_ERRORS, match="values inside values"):
        as_import(tmp_path / "x.pt")
    torch.save({**good, "d": {"convs.0.0.weight\x1b[2J": torch.zeros(1)}}, tmp_path / "y.pt")
    as_import(tmp_path / "y.pt")
    said = capsys.readouterr().out
    assert "WITHOUT its discriminator, which cannot be read: a state dict without convs.*" in said
    assert "\x1b" not in said and said.count("\n") == 1
    assert (tmp_path / "imported/y/y.safetensors").is_file()
