"""Files that are no plain generator: what is in them is read, or said."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from ganinv.core.errors import WeightsError
from ganinv.core.safe.io import read_safetensors, write_safetensors
from ganinv.editing.boundary import read_boundary
from ganinv.generator.importer import rosinality
from ganinv.generator.importer.load import find_discriminator, load_generator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.interop.imported import trimmed
from tests.generator import nvidia_files
from tests.generator.nvidia_files import content, dump

SMALL = {
    "z_dim": 8, "c_dim": 0, "w_dim": 8, "resolution": 16, "img_channels": 3, "mapping_layers": 2,
    "channel_base": 64, "channel_max": 8, "conv_clamp": None,
}  # fmt: skip


@pytest.fixture
def generator():
    return StyleGAN2Generator(**SMALL).eval()


def read(path):
    return load_generator(weights=str(path), resolution=None, kind=None, origin=None)


def test_a_file_without_noise_is_one_generator(tmp_path, generator):
    state = rosinality.export_state(generator)
    old = {key: value for key, value in state.items() if not key.startswith("noises.")}
    torch.save({"g_ema": old, "latent_avg": torch.zeros(8)}, tmp_path / "old.pt")
    first = read(tmp_path / "old.pt").state_dict()
    torch.manual_seed(99)
    second = read(tmp_path / "old.pt").state_dict()
    maps = [key for key in first if key.endswith("noise_const")]
    assert maps and all(torch.equal(first[key], second[key]) for key in first)
    assert len({float(first[key].sum()) for key in maps}) == len(maps)  # no two alike
    old["input.input"] = old["input.input"] + 1
    torch.save({"g_ema": old, "latent_avg": torch.zeros(8)}, tmp_path / "other.pt")
    assert not torch.equal(read(tmp_path / "other.pt").state_dict()[maps[0]], first[maps[0]])


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_nvidia_s_network_alone(tmp_path, generator, kind, monkeypatch):
    """PTI saves its tuned generator as a bare module, by torch.save."""
    module, path = content(generator)["G_ema"], tmp_path / "bare"
    if kind == "pickle":
        path.write_bytes(dump(module))
    else:
        for name, value in nvidia_files.stand_ins().items():
            monkeypatch.setitem(sys.modules, name, value)
        torch.save(module, path, _use_new_zipfile_serialization=kind == "zip")
    found = read(path).state_dict()
    assert all(torch.equal(found[key], value) for key, value in generator.state_dict().items())


def test_bare_states_and_directions_are_told_what_works(tmp_path, generator):
    torch.save(generator.state_dict(), tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="a bare state dict of NVIDIA's.*'G_ema': G"):
        read(tmp_path / "state.pt")
    torch.save(torch.ones(1, 8), tmp_path / "age.pt")
    with pytest.raises(WeightsError, match="a tensor of shape .*a direction.*ganinv import"):
        read(tmp_path / "age.pt")
    assert read_boundary(tmp_path / "age.pt").direction.shape == (1, 8)
    metadata = {"format": "ganinv-boundary", "layers": [0, 1]}
    write_safetensors(tmp_path / "b.safetensors", {"boundary": torch.ones(1, 8)}, metadata)
    assert read_boundary(tmp_path / "b.safetensors").layers == [0, 1]


def test_hyperstyle_and_whole_modules(tmp_path, generator):
    state = {f"decoder.{k}": v for k, v in rosinality.export_state(generator).items()}
    state["hypernet.input_layer.0.weight"] = torch.zeros(1)
    torch.save({"state_dict": state, "latent_avg": torch.zeros(8)}, tmp_path / "h.pt")
    with pytest.raises(WeightsError, match="a hypernetwork .HyperStyle."):
        read(tmp_path / "h.pt")
    torch.save(generator, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match="'g_ema': G.state_dict.*never runs code"):
        read(tmp_path / "whole.pt")


def test_a_discriminator_that_cannot_be_read_is_not_none(tmp_path, generator):
    good = {"g_ema": rosinality.export_state(generator), "latent_avg": torch.zeros(8)}
    torch.save(good, tmp_path / "none.pt")
    assert find_discriminator(weights=str(tmp_path / "none.pt"), origin=None) is None
    torch.save({**good, "d": {"convs.0.0.weight": torch.zeros(1)}}, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match="without convs"):
        find_discriminator(weights=str(tmp_path / "bad.pt"), origin=None)


def test_heads_beyond_the_generator_are_left_out(caplog):
    state = {f"styles.{i}.linear.weight": torch.ones(1) for i in range(18)}
    with caplog.at_level(logging.WARNING):
        kept = trimmed({**state, "body.0.x": torch.ones(1)}, 16)
    assert len(kept) == 17 and "last 2 heads" in caplog.text


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_short_says_so(tmp_path, legacy):
    path = tmp_path / "x.pt"
    torch.save({"g_ema": {"a": torch.ones(5000)}}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for length in (0, 3, 10, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="cut short|it is empty|not begin as"):
            read(path)


def test_a_safetensors_file_that_shrinks_ends_nothing(tmp_path):
    """Mapped files end their readers with SIGBUS."""
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.ones(1 << 20)}, {})
    code = (
        "import os, sys; from ganinv.core.safe.io import read_safetensors\n"
        "found, _ = read_safetensors(sys.argv[1]); os.truncate(sys.argv[1], 0)\n"
        "print(int(found['a'].sum()))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert found.stdout == f"{1 << 20}\n", found
    with pytest.raises(WeightsError, match="cut short"):
        read_safetensors(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(WeightsError, match="is no file"):
        read_safetensors(tmp_path / "pipe.safetensors")
