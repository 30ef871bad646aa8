"""`ganinv fit` and `ganinv edit` as a user types them: what they write, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ganinv.core.direction import Direction, write_directions
from ganinv.core.image import to_uint8
from ganinv.core.interface import Inversion
from ganinv.core.safe.io import read_safetensors, sha256_file
from ganinv.editing.direction import find_direction, read_directions
from ganinv.generator.importer.load import load_generator
from ganinv.inversion.file import write_inversion
from tests.cli.commands import ok, refused
from tests.runs import tiny_generator_file


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, generator's file, the generator, codes of five images in latents.pt)."""
    folder = tmp_path_factory.mktemp("world")
    file = tiny_generator_file(folder)
    G = load_generator(weights=str(file), resolution=None, kind=None, origin=None)
    codes = G.mapping(torch.randn(5, 16))[:, None].repeat(1, 10, 1)
    torch.save(codes, folder / "latents.pt")
    np.save(folder / "latents.npy", codes.numpy())
    near = torch.randn(1, 16)
    smile = Direction("smile", near / near.norm(), (0, 1, 2), 2.0, None, G.sha256)
    write_directions(folder / "smile.safetensors", [smile])
    return folder, file, G, codes


@pytest.fixture(autouse=True)
def short_videos(monkeypatch):
    monkeypatch.setattr("ganinv.evaluation.strip.FRAMES", 4)


def test_strips_codes_and_a_video(world, tmp_path, capsys):
    folder, file, G, codes = world
    out = tmp_path / "o"
    said = ok(capsys, "edit", folder / "latents.pt", "--direction", folder / "smile", "--strengths",
              "-1..2", "--generator", file, "--out", out, "--limit", 3)  # fmt: skip
    assert "smile.png  3 images, strengths -1, 0, +1, +2" in said and "smile.webp" in said
    edited = torch.load(out / "codes/smile.pt", weights_only=True)
    assert edited.shape == (3, 4, 10, 16)
    assert np.array_equal(np.load(out / "codes/smile.npy"), edited.numpy())
    vector = find_direction(str(folder / "smile")).vectors[0]
    torch.testing.assert_close(edited[:, 1], codes[:3])
    torch.testing.assert_close(edited[:, 3, :3] - codes[:3, :3], (4 * vector).expand(3, 3, -1))
    assert edited[:, 3, 3:].equal(codes[:3, 3:])
    with Image.open(out / "strips/smile/00002.png") as picture:  # 64 px are drawn as 128
        assert picture.size == (4 * 130 - 2, 18 + 128)
        pixels = np.array(picture)[18:, 3 * 130 :: 2][::2].astype(int)
    with torch.no_grad():
        expected = to_uint8(G.synthesis(edited[2:3, 3]))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(pixels - expected).max() <= 1
    with Image.open(out / "smile.png") as sheet, Image.open(out / "smile.webp") as video:
        assert sheet.size == (518, 18 + 3 * 130 - 2)
        assert video.n_frames == 6 and video.size == (3 * 130 + 2, 132)
    about = json.loads((out / "edit.json").read_text())
    assert about["images"] == ["00000", "00001", "00002"] and about["strengths"] == [-1, 0, 1, 2]
    assert about["generator_sha256"] == sha256_file(file)
    refused(capsys, "which holds other files; expected a new or empty folder", "edit",
            folder / "latents.pt", "--direction", folder / "smile", "--out", out)  # fmt: skip


def test_between_images_and_their_layers_exchanged(world, tmp_path, capsys):
    """Each image with the next: what stands in the codes, and in the pictures of them."""
    folder, file, G, codes = world
    out = tmp_path / "o"
    said = ok(capsys, "edit", folder / "latents.pt", "--interpolate", 3, "--crossover", "0-2",
              "--generator", file, "--out", out, "--limit", 3)  # fmt: skip
    assert "interpolate.png  2 pairs, at 0, 0.5, 1" in said and "interpolate.webp" in said
    assert "crossover.png  2 pairs: 1, 2, 1 with 0-2 of 2, 2 with 0-2 of 1" in said
    between = torch.load(out / "codes/interpolate.pt", weights_only=True)
    expected = torch.stack([codes[:2], (codes[:2] + codes[1:3]) / 2, codes[1:3]], 1)
    torch.testing.assert_close(between, expected)
    crossed = torch.load(out / "codes/crossover.pt", weights_only=True)
    assert crossed.shape == (2, 4, 10, 16) and crossed[:, 0].equal(codes[:2])
    assert crossed[:, 1].equal(codes[1:3])
    assert crossed[:, 2].equal(torch.cat([codes[1:3, :3], codes[:2, 3:]], 1))
    assert crossed[:, 3].equal(torch.cat([codes[:2, :3], codes[1:3, 3:]], 1))
    with Image.open(out / "strips/crossover/00001--00002.png") as picture:
        assert picture.size == (4 * 130 - 2, 18 + 128)
        pixels = np.array(picture)[18::2, 2 * 130 : 2 * 130 + 128 : 2].astype(int)
    with torch.no_grad():
        shown = to_uint8(G.synthesis(crossed[1:, 2]))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(pixels - shown).max() <= 1
    assert not (out / "crossover.webp").exists()  # there is nothing between
    about = json.loads((out / "edit.json").read_text())
    assert about["interpolate"] == 3 and about["crossover"] == [0, 1, 2]
    assert about["strengths"] is None


def test_pairs_that_cannot_be(world, tmp_path, capsys):
    folder, file, G, codes = world
    common = ("edit", folder / "latents.pt", "--generator", file, "--out", tmp_path / "o")
    refused(capsys, "ganinv edit without an edit; expected --direction, --interpolate or --cross",
            *common)  # fmt: skip
    refused(capsys, "--interpolate 1; expected 2 to 101 pictures", *common, "--interpolate", 1)
    refused(capsys, "latents.pt with one code for --interpolate; expected at least two: each goes "
            "with the next", *common, "--interpolate", 3, "--limit", 1)  # fmt: skip
    refused(capsys, "--crossover 3-12; expected layers from 0 to 9", *common, "--crossover", "3-12")
    for option in ("--strengths=0,1", "--layers=0"):
        words = f"{option.split('=')[0]} without --direction; expected the direction that"
        refused(capsys, words, *common, "--interpolate", 3, option)
    (tmp_path / "mixed").mkdir()
    f = torch.zeros(1, 8, 8, 8)
    for name, found in (("a", Inversion(codes[:1], f=f)), ("b", Inversion(codes[1:2]))):
        write_inversion(tmp_path / f"mixed/{name}.safetensors", found, 0, G, {"key": name})
    refused(capsys, "one inversion with f and one without; expected two inversions of the same",
            "edit", tmp_path / "mixed", "--interpolate", 3, "--generator", file, "--out",
            tmp_path / "o")  # fmt: skip
    assert not (tmp_path / "o").exists()


def test_an_inversion_keeps_its_noise_and_weights(world, tmp_path, capsys):
    """Files of `ganinv invert --method` name their generator; two of them, one tuned."""
    folder, _, G, codes = world
    noise = {"synthesis.b64.conv1.noise_const": torch.randn(2, 1, 64, 64)}
    weights = {"synthesis.b64.torgb.bias": torch.tensor([[0.3, 0.0, -0.3], [0.0, 0.0, 0.0]])}
    found = Inversion(codes[:2], noise=noise, weights=weights)
    (tmp_path / "t/inversions/a").mkdir(parents=True)
    for row in (0, 1):
        write_inversion(tmp_path / f"t/inversions/a/{row}.safetensors", found, row, G, {"key": "x"})
    ok(capsys, "edit", tmp_path / "t", "--direction", folder / "smile.safetensors", "--strengths=0",
       "--out", tmp_path / "o")  # fmt: skip
    with torch.no_grad():
        expected = to_uint8(G.synthesis(codes[:2], noise=noise, weights=weights))
    for row in (0, 1):
        with Image.open(tmp_path / f"o/strips/smile/a/{row}.png") as picture:
            shown = torch.from_numpy(np.array(picture)[18::2, ::2]).permute(2, 0, 1)
        assert (shown.int() - expected[row].int()).abs().max() <= 1


def test_mp4_and_what_is_said_without_ffmpeg(world, tmp_path, capsys, monkeypatch):
    folder, file, _, _ = world
    common = ("edit", folder / "latents.npy", "--direction", folder / "smile", "--strengths", "0,1",
              "--generator", file, "--limit", 1, "--video", "mp4")  # fmt: skip
    ok(capsys, *common, "--out", tmp_path / "o")
    assert (tmp_path / "o/smile.mp4").read_bytes()[4:8] == b"ftyp"
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    refused(capsys, '--video mp4 without ffmpeg; expected the package imageio-ffmpeg, which has it.'
            ' To fix: install it, pip install "ganinv[video]", or take --video webp', *common,
            "--out", tmp_path / "p")  # fmt: skip
    assert not (tmp_path / "p").exists()


def test_edits_that_cannot_be(world, tmp_path, capsys):
    folder, file, G, _ = world
    out, smile = ("--out", tmp_path / "o"), ("--direction", folder / "smile")
    latents = folder / "latents.pt"
    common = ("edit", latents, *smile, "--generator", file, *out)
    for text, words in (
        ("a..3", "--strengths a..3: a, which is no number; expected numbers"),
        ("1,,2", "nothing, which is no number"),
        ("nan", "nan, which is no number"),
        ("-3..3:1", "1 strengths; expected 2 to 101 of them"),
        ("0..1000", "1001 strengths"),
    ):
        refused(capsys, words, *common, "--strengths", text)
    refused(capsys, "which names no generator; expected the one", "edit", latents, *smile, *out)
    refused(capsys, "no direction gone; expected a file of one", "edit", latents, "--direction",
            "gone", "--generator", file, *out)  # fmt: skip
    refused(capsys, "--layers 12; expected layers from 0 to 9", *common, "--layers", "12")
    refused(capsys, "--video gif; expected one of webp, mp4, none", *common, "--video", "gif")
    refused(capsys, "no codes nowhere.pt; expected latents.pt", "edit", "nowhere.pt", *smile, *out)
    np.save(tmp_path / "age_boundary.npy", np.ones((1, 512), np.float32))
    refused(capsys, "the direction age of width 512; expected one of width 16", "edit", latents,
            "--direction", tmp_path / "age_boundary.npy", "--generator", file, *out)  # fmt: skip
    other = Direction("x", torch.ones(1, 16), generator_sha256="0" * 64)
    write_directions(tmp_path / "other.safetensors", [other])
    refused(capsys, "the direction x, fitted on a generator with sha256 000000000000", "edit",
            latents, "--direction", tmp_path / "other", "--generator", file, *out)  # fmt: skip
    torch.save(torch.ones(3, 18, 512), tmp_path / "wide.pt")
    refused(capsys, "with codes of [18, 512]; expected [10, 16], as those of", "edit",
            tmp_path / "wide.pt", *smile, "--generator", file, *out)  # fmt: skip
    torch.save({"a": 1}, tmp_path / "none.pt")
    refused(capsys, "with a dict; expected finite codes of shape [N,L,D]", "edit",
            tmp_path / "none.pt", *smile, "--generator", file, *out)  # fmt: skip
    (tmp_path / "latents.pt").write_bytes(latents.read_bytes())
    (tmp_path / "invert.json").write_text(json.dumps({"settings": {"generator_sha256": "f" * 64}}))
    refused(capsys, "found in a generator with sha256 ffffffffffff; expected", "edit",
            tmp_path / "latents.pt", *smile, "--generator", file, *out)  # fmt: skip
    assert not (tmp_path / "o").exists() and G.sha256 == sha256_file(file)


# ------------------------------------------------------------------ ganinv fit


def test_sefa_and_ganspace_write_what_edit_reads(world, tmp_path, capsys):
    _, file, G, _ = world
    sefa, pca = tmp_path / "sefa.safetensors", tmp_path / "pca.safetensors"
    said = ok(capsys, "fit", "sefa", file, "--layers", "0-1,3", "--count", 4, "--out", sefa)
    assert "4 directions of 1 x 16 (0 to 3)" in said and "eigenvalues: " in said
    ok(capsys, "fit", "ganspace", file, "--samples", 500, "--count", 3, "--out", pca)
    found = read_directions(sefa)
    assert found["3"].layers == (0, 1, 3) and found["0"].generator_sha256 == G.sha256
    assert read_directions(pca)["2"].fitted["samples"] == 500
    _, metadata = read_safetensors(pca)
    assert metadata["generator_source"] == str(file)
    refused(
        capsys, "which exists; expected a name that is free", "fit", "sefa", file, "--out", sefa
    )
    refused(
        capsys, "expected the name of a .safetensors file", "fit", "sefa", file, "--out", "a.pt"
    )
    refused(capsys, "--layers 3-99; expected layers from 0 to 9", "fit", "sefa", file, "--layers",
            "3-99", "--out", tmp_path / "n.safetensors")  # fmt: skip
    refused(capsys, "generator.weights=gone, which is no file", "fit", "ganspace", "gone", "--out",
            tmp_path / "n.safetensors")  # fmt: skip


def test_a_boundary_of_codes_and_scores(world, tmp_path, capsys):
    """Scores that are the third number of w, of codes of W and of W+."""
    folder, file, G, _ = world
    w = torch.randn(300, 16)
    np.save(tmp_path / "w.npy", w.numpy())
    torch.save(w[:, None].repeat(1, 10, 1), tmp_path / "wp.pt")
    lines = ["name,third,same,words"] + [f"{i},{x[2]:.5f},1,a" for i, x in enumerate(w.tolist())]
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    given = ("--scores", tmp_path / "scores.csv", "--ratio", "0.3")
    for name, rows in (("w.npy", 1), ("wp.pt", 10)):
        out = tmp_path / f"{name}.safetensors"
        said = ok(capsys, "fit", "boundary", file, "--codes", tmp_path / name, *given,
                  "--attribute", "third", "--out", out)  # fmt: skip
        assert "third: 180 of 300 codes; right on the 30 % of them that were held out: " in said
        found = find_direction(str(out))
        assert found.vectors.shape == (rows, 16) and found.vectors[0, 2] > 0.9
        assert found.generator_sha256 == G.sha256 and found.fitted["scores_sha256"]
    smile, out = folder / "smile.safetensors", tmp_path / "conditional.safetensors"
    ok(capsys, "fit", "boundary", file, "--codes", tmp_path / "w.npy", *given, "--attribute",
       "third", "--condition", smile, "--out", out)  # fmt: skip
    found, other = find_direction(str(out)), find_direction(str(smile))
    assert abs(float((found.vectors * other.vectors).sum())) < 1e-5
    assert found.fitted["projected_off"] == ["smile"]

    def wrong(words, *more, codes="w.npy"):
        refused(capsys, words, "fit", "boundary", file, "--codes", tmp_path / codes, *given,
                "--out", tmp_path / "n.safetensors", *more)  # fmt: skip

    wrong(
        "without a column smlie; expected one of name, third, same, words", "--attribute", "smlie"
    )
    wrong("same: one class only, 300 codes of the score 1", "--attribute", "same")
    wrong("line 2: words is 'a'; expected a number", "--attribute", "words")
    torch.save(w[:200], tmp_path / "few.pt")
    wrong("with 300 scores for 200 codes", "--attribute", "third", codes="few.pt")
    torch.save(w[:, :8], tmp_path / "thin.pt")
    wrong("of [300, 8]; expected [N,16] or [N,10,16]", "--attribute", "third", codes="thin.pt")
    wrong("--probe with --codes or --scores; expected", "--attribute", "third", "--probe", "p")
    refused(capsys, "a boundary without scores; expected --probe FILE, or", "fit", "boundary", file,
            "--attribute", "a", "--out", tmp_path / "n.safetensors")  # fmt: skip


def test_a_probe_of_the_built_in_domain_and_a_boundary_by_it(world, assets, tmp_path, capsys):
    _, file, _, _ = world
    sets = [word for key in ("num_train=20", "num_val=6", "num_test=6", f"cache={assets[1]}")
            for word in ("--set", key)]  # fmt: skip
    probe = tmp_path / "probe.safetensors"
    common = ("fit", "probe", *sets, "--grid", 2)
    said = ok(capsys, *common, "--attributes", "skin_tone,background_rgb.0", "--out", probe)
    assert "2 attributes, from 20 train, 6 val, 6 test images" in said and "skin_tone" in said
    _, metadata = read_safetensors(probe)
    assert [a["name"] for a in metadata["attributes"]] == ["skin_tone", "background_rgb.0"]
    assert f"R2 {metadata['attributes'][0]['test']:.3f}" in said
    assert metadata["backbone"] == "efficientnet_lite0" and metadata["image_size"] == [64, 64]
    assert metadata["fitted"]["dataset"]["num_train"] == 20
    out = tmp_path / "skin.safetensors"
    by = ("fit", "boundary", file, "--probe", probe, "--samples", 40, "--ratio", 12)
    said = ok(capsys, *by, "--attribute", "skin_tone", "--out", out)
    assert "skin_tone: the probe has R2 " in said and "24 of 40 codes" in said
    assert find_direction(str(out)).fitted["probe"].startswith("R2 ")
    new = tmp_path / "n.safetensors"
    refused(capsys, "no probe of smile; expected one of skin_tone, background_rgb.0. To fix: fit",
            *by, "--attribute", "smile", "--out", new)  # fmt: skip
    refused(capsys, "smile.safetensors with the format 'ganinv-direction'; expected a file of `gan",
            *by[:3], "--probe", world[0] / "smile.safetensors", "--attribute", "a", "--out",
            new)  # fmt: skip
    refused(capsys, "no attribute smlie; expected one of", *common, "--attributes", "smlie",
            "--out", new)  # fmt: skip
    refused(capsys, "--dataset avtars64, which is not in conf/dataset", "fit", "probe", "--dataset",
            "avtars64", "--out", new)  # fmt: skip
    refused(capsys, "--stages 1,9; expected numbers from 0 to 4", *common, "--stages", "1,9",
            "--out", new)  # fmt: skip
    refused(capsys, "the backbone resnet; expected one of arcface, efficientnet_lite0", *common,
            "--backbone", "resnet", "--out", new)  # fmt: skip
