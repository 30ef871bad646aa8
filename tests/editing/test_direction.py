"""Moving along a direction by hand; every published file; what is refused, in words."""

import io
import zipfile

import numpy as np
import pytest
import torch

from ganinv.core.direction import Direction, write_directions
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.core.interface import Inversion
from ganinv.core.safe.io import write_safetensors
from ganinv.editing.direction import (
    Along,
    check_generator,
    find_direction,
    move,
    read_directions,
)
from ganinv.generator.stylegan2 import StyleGAN2Generator
from tests.core.safe.test_npy import idinvert

SHAPE = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "resolution": 16, "img_channels": 3,
         "mapping_layers": 2, "channel_base": 64, "channel_max": 8, "conv_clamp": None}  # fmt: skip


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    G = StyleGAN2Generator(**SHAPE)
    G.source, G.sha256 = "g.safetensors", "1" * 64
    return G.requires_grad_(False)


def test_a_code_moves_by_strength_scale_and_vector_on_its_layers():
    wp = torch.randn(2, 4, 3)
    everywhere = Direction("a", torch.tensor([[1.0, 0.0, 2.0]]), None, 0.5)
    found = Inversion(wp, f=torch.ones(2, 1, 2, 2), noise={"n": torch.ones(2, 1, 4, 4)})
    moved = move(found, everywhere, -2)
    torch.testing.assert_close(moved.wp, wp - torch.tensor([1.0, 0.0, 2.0]))
    assert moved.f is found.f and moved.noise is found.noise and found.wp is wp
    torch.testing.assert_close(move(found, everywhere, 0).wp, wp)
    some = Direction("b", torch.ones(1, 3), (1, 3))
    assert (move(found, some, 1).wp - wp).mean(2)[0].tolist() == pytest.approx([0, 1, 0, 1])
    assert (move(found, some, 1, [0]).wp - wp).mean(2)[0].tolist() == pytest.approx([1, 0, 0, 0])
    rows = torch.arange(12.0).reshape(4, 3)
    torch.testing.assert_close(
        move(found, Direction("c", rows, (2,)), 1).wp[:, 2], wp[:, 2] + rows[2]
    )


def test_the_score_is_the_mean_signed_distance():
    wp = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    same = Direction("a", torch.tensor([[0.6, 0.8]]), None, 1.0, torch.tensor([-1.0]))
    assert float(same.score(wp)) == pytest.approx(((0.6 - 1) + (2.4 - 1)) / 2)
    rows = Direction("a", torch.eye(2), (1,), 1.0, torch.tensor([5.0, 0.5]))
    assert float(rows.score(wp)) == pytest.approx(3.5)
    with pytest.raises(ConfigError, match="a, which has no intercept; expected a boundary"):
        Direction("a", torch.ones(1, 2)).score(wp)


def npz(path, **arrays):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


def test_published_files(tmp_path):
    vector = np.random.default_rng(0).standard_normal((1, 512))
    np.save(tmp_path / "stylegan_ffhq_age_w_boundary.npy", vector)  # InterFaceGAN
    (found,) = read_directions(tmp_path / "stylegan_ffhq_age_w_boundary.npy").values()
    assert found.name == "stylegan_ffhq_age_w" and found.scale == 1 and found.layers is None
    np.testing.assert_allclose(found.vectors.numpy(), vector, rtol=1e-6)
    data, rows = idinvert()
    (tmp_path / "pose.npy").write_bytes(data)  # IDInvert
    found = find_direction(str(tmp_path / "pose.npy"))
    assert found.vectors.shape == (14, 512) and found.layers == (0, 1, 2)
    torch.save(torch.ones(1, 512), tmp_path / "smile.pt")  # pSp's, e4e's, PTI's
    assert find_direction(str(tmp_path / "smile")).vectors.shape == (1, 512)  # without its suffix
    torch.save(torch.ones(512), tmp_path / "flat.pt")
    assert find_direction(str(tmp_path / "flat.pt")).vectors.shape == (1, 512)
    comp, std = torch.randn(5, 1, 8), torch.rand(5) + 1
    torch.save({"comp": comp, "std": std, "mean": torch.zeros(1, 8)}, tmp_path / "pca.pt")  # e4e
    found = find_direction(f"{tmp_path / 'pca.pt'}:3")
    assert found.vectors.equal(comp[3]) and found.scale == float(std[3]) and found.name == "3"
    file = npz(tmp_path / "gs.npz", lat_comp=comp.numpy(), lat_stdev=std.numpy(), act_mean=comp)
    assert find_direction(f"{file}:4").vectors.equal(comp[4])  # GANSpace
    write_safetensors(tmp_path / "old.safetensors", {"boundary": torch.ones(1, 4, 8)},
                      {"format": "ganinv-boundary", "layers": [1]})  # fmt: skip
    found = find_direction(str(tmp_path / "old.safetensors"))  # of `ganinv import`
    assert found.vectors.shape == (4, 8) and found.layers == (1,)


def test_our_file_keeps_all(tmp_path):
    given = [
        Direction("a", torch.randn(1, 4), (0, 2), 0.25, torch.tensor([0.5]), "ab", {"by": "hand"}),
        Direction("b", torch.randn(6, 4), None, 3.0, None, "ab", {"by": "hand"}),
    ]
    path = tmp_path / "d.safetensors"
    write_directions(path, given, generator_source="g.pkl")
    found = read_directions(path)
    assert list(found) == ["a", "b"]
    for one in given:
        again = found[one.name]
        assert again.vectors.equal(one.vectors) and again.layers == one.layers
        assert (again.scale, again.generator_sha256, again.fitted) == (one.scale, "ab", one.fitted)
    assert found["a"].intercept.equal(given[0].intercept) and found["b"].intercept is None
    with pytest.raises(ConfigError, match=r"holds 2 directions; expected one of a, b. To fix: na"):
        find_direction(str(path))
    with pytest.raises(ConfigError, match="without a direction smile; expected one of a, b"):
        find_direction(f"{path}:smile")


def test_another_width_generator_or_strength_is_refused(G, tmp_path):
    found = Inversion(torch.zeros(1, 6, 8))
    wide = Direction("age", torch.ones(1, 512))
    with pytest.raises(WeightsError, match="age of width 512; expected one of width 8, or 6 x 8"):
        move(found, wide, 1)
    with pytest.raises(WeightsError, match="age of width 512"):
        check_generator(wide, G)
    with pytest.raises(WeightsError, match="of 14 x 8; expected one of width 8, or 6 x 8"):
        move(found, Direction("age", torch.ones(14, 8)), 1)
    other = Direction("age", torch.ones(1, 8), generator_sha256="2" * 64)
    with pytest.raises(WeightsError, match="fitted on a generator with sha256 222222222222; exp"):
        check_generator(other, G)
    check_generator(Direction("age", torch.ones(1, 8), generator_sha256="1" * 64), G)
    with pytest.raises(WeightsError, match="age of layer 6; expected layers from 0 to 5, those of"):
        check_generator(Direction("age", torch.ones(1, 8), (5, 6)), G)
    for odd in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="strength (nan|inf); expected a finite number"):
            move(found, Direction("age", torch.ones(1, 8)), odd)
    with pytest.raises(ConfigError, match=r"layers \[6\] of age; expected layers from 0 to 5"):
        move(found, Direction("age", torch.ones(1, 8), (5, 6)), 1)
    write_directions(tmp_path / "o.safetensors", [other])
    with pytest.raises(WeightsError, match="fitted on a generator"):
        Along(file=str(tmp_path / "o"), wp_layers=None, strengths=[1], generator=G)


def test_files_that_hold_no_direction(tmp_path):
    def refused(words, name, error=WeightsError):
        with pytest.raises(error, match=words):
            find_direction(str(tmp_path / name))

    refused(
        "no direction .*gone; expected a file of one, FILE or FILE:NAME", "gone", WeightsMissing
    )
    torch.save({"state_dict": {}}, tmp_path / "network.pt")
    refused("a dict instead of a tensor", "network.pt")
    np.save(tmp_path / "fs3.npy", np.ones((6048, 512), np.float32))  # StyleCLIP's
    refused(r"shape \[6048, 512\], StyleCLIP's global directions.*channels of styles, not W", "fs3")
    torch.save({"comp": torch.ones(3, 1, 8), "std": torch.zeros(3)}, tmp_path / "flat.pt")
    refused("standard deviations that fit no component", "flat.pt")
    npz(tmp_path / "other.npz", act_comp=np.ones(3))
    refused("no array lat_comp", "other.npz")
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04" + bytes(90))
    refused("junk.npz was refused", "junk.npz")
    npz(tmp_path / "bomb.npz", lat_comp=np.zeros(3 << 20), lat_stdev=np.ones(3))
    refused("an array lat_comp of more than 16777216 bytes", "bomb.npz")
    good = Direction("a", torch.ones(1, 4))
    write_directions(tmp_path / "nan.safetensors", [Direction("a", torch.full((1, 4), torch.nan))])
    refused("numbers that are not finite", "nan.safetensors")
    for key, value in {"scale": 0.0, "layers": [-1]}.items():
        odd = Direction("a", good.vectors, **{key: value})
        write_directions(tmp_path / "odd.safetensors", [odd])
        refused("the scale 0.0 of a|layers that are no list", "odd.safetensors")
