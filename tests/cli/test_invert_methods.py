"""`ganinv invert --method`: the method's own result, kept whole, in any batches, after any stop."""

import csv
import json
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ganinv.cli._inverting import Inverter
from ganinv.cli._methods import config_of
from ganinv.cli.main import main
from ganinv.config.inversions import build_inversions
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Target
from ganinv.core.safe.io import write_safetensors
from ganinv.core.seed import derive_seed
from ganinv.evaluation.open import open_model
from ganinv.inversion.diffusion import diffuse
from ganinv.inversion.file import FORMAT, read_inversion
from ganinv.inversion.image2stylegan import Image2StyleGAN
from tests.cli.test_invert import ok, picture, refused
from tests.processes import killed_at_a_step

SHORT = ("--set", "steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        picture(i, (64, 64)).save(folder / f"{i}.png")
    return folder


def content(out):
    return json.loads((out / "invert.json").read_text())


def test_what_is_kept_is_all_that_the_method_found(trained, folder, tmp_path, capsys):
    """Codes, noise maps and weights of the file make the picture; latents.pt has the codes."""
    checkpoint, _ = trained
    out = tmp_path / "o"
    said = ok(capsys, checkpoint, folder, "--out", out, "--method", "pti", "--start", "projector",
              *SHORT, "--set", "inversion.projector.steps=2", "--set",
              "inversion.projector.samples=50", "--batch-size", 2)  # fmt: skip
    assert "inversions/: one file an image, after 2 steps on average" in said
    assert content(out)["steps"] == [2, 2, 2] and content(out)["not_finite"] == []
    with open(out / "loss.csv") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["image", "0", "1"] and [row[0] for row in rows] == ["0.png", "1.png", "2.png"]
    first, last = ([float(row[i]) for row in rows] for i in (1, 2))
    told = content(out)["loss"]
    assert told["name"] == "total" and told["last"] == pytest.approx(sum(last) / 3, rel=1e-6)
    assert told["first"] == pytest.approx(sum(first) / 3, rel=1e-6) and told["last"] < told["first"]
    ends = f"total {told['first']:.4g} at the first step, {told['last']:.4g} at the last"
    assert f"loss.csv: {ends}" in said and logging.getLogger("ganinv.inversion.pace").level == 20
    codes = torch.load(out / "latents.pt", weights_only=True)
    model = open_model(checkpoint).model
    for i in range(3):
        found, about = read_inversion(out / "inversions" / f"{i}.safetensors")
        assert about["key"] == f"{i}.png" and about["method"] == "pti"
        assert about["generator_sha256"] == model.G.sha256
        assert torch.equal(found.wp[0], codes[i]) and found.noise and found.weights
        shown = to_uint8(model.render(found))[0].permute(1, 2, 0).numpy().astype(int)
        saved = np.array(Image.open(out / "images" / f"{i}.png")).astype(int)
        assert np.abs(saved - shown).max() <= 1
        plain = to_uint8(model.render(found.wp))[0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(saved - plain).max() > 1


def test_codes_are_the_method_s_with_seeds_of_the_names(trained, folder, tmp_path, capsys):
    """As Python would call it; other batches and a stop change nothing but rounding."""
    checkpoint, _ = trained
    common = (checkpoint, folder, "--method", "image2stylegan", "--start", "random", *SHORT)
    ok(capsys, *common, "--out", tmp_path / "a", "--batch-size", 1)
    ok(capsys, *common, "--out", tmp_path / "b", "--batch-size", 3)
    first, second = (torch.load(tmp_path / n / "latents.pt", weights_only=True) for n in "ab")
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)
    model = open_model(checkpoint).model
    pixels = torch.from_numpy(np.array(Image.open(folder / "1.png"))).permute(2, 0, 1)[None]
    x = to_unit(pixels)
    target = Target(x=x, s=x, key=["1.png"], seeds=[derive_seed(0, "inversion", "1.png")])
    cfg = config_of("image2stylegan", "random", ["steps=2"])
    found = build_inversions(cfg.inversion, model)["image2stylegan"](target)
    torch.testing.assert_close(found.wp[0], first[1], rtol=0, atol=1e-4)


def test_a_stopped_command_goes_on_and_others_are_refused(
    trained, folder, tmp_path, capsys, monkeypatch
):
    checkpoint, _ = trained
    out = ("--out", tmp_path / "o")
    common = (checkpoint, folder, "--method", "pti", *SHORT, "--batch-size", 1)
    whole = Inverter.invert

    def stop(self, out, number):
        if number == 1:
            raise KeyboardInterrupt
        return whole(self, out, number)

    monkeypatch.setattr(Inverter, "invert", stop)
    assert main(["invert", *(str(a) for a in (*common, *out))]) == 130
    monkeypatch.undo()
    capsys.readouterr()
    for other in (("--set", "steps=3"), ("--set", "lr=0.1"), ("--start", "w_avg")):
        refused(capsys, "begun with other methods; expected the same command", *common, *other,
                *out)  # fmt: skip
    refused(capsys, "begun with other method, methods", checkpoint, folder, "--method", "clone",
            *SHORT, "--set", "global_batch=1", "--batch-size", 1, *out)  # fmt: skip
    assert "going on after 1 of 3 batches" in ok(capsys, *common, *out)
    ok(capsys, *common, "--out", tmp_path / "whole")
    for i in range(3):
        first, second = (
            read_inversion(folder_ / "inversions" / f"{i}.safetensors")[0].weights
            for folder_ in (tmp_path / "o", tmp_path / "whole")
        )
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_killed_within_an_optimisation_and_typed_again_is_uninterrupted(
    trained, folder, tmp_path, capsys
):
    """kill -9 at the second image's last step; bit for bit, the loss on the way too."""
    command = (trained[0], folder, "--method", "projector", "--start", "encode", *SHORT,
               "--set", "samples=50", "--batch-size", 1, "--out")  # fmt: skip
    words = ["invert", *(str(word) for word in (*command, tmp_path / "o"))]
    killed_at_a_step("ganinv/cli/main.py", words, tmp_path, module="projector",
                     method="Projector", call=4)  # fmt: skip
    assert not (tmp_path / "o" / "invert.json").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the killed process had
    assert "going on after 1 of 3 batches" in ok(capsys, *command, tmp_path / "o")
    ok(capsys, *command, tmp_path / "whole")
    torch.set_num_threads(threads)
    for name in ("latents.npy", "loss.csv", "invert.json", "images/2.png"):
        first, second = ((tmp_path / out / name).read_bytes() for out in ("o", "whole"))
        assert first == second, name
    for i in range(3):
        first, second = (
            read_inversion(tmp_path / out / "inversions" / f"{i}.safetensors")[0].noise
            for out in ("o", "whole")
        )
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_masks_are_of_the_images(trained, folder, tmp_path, capsys):
    """White counts: what is black has no say, whatever is there."""
    checkpoint, _ = trained
    masks, other = tmp_path / "masks", tmp_path / "other"
    masks.mkdir(), other.mkdir()
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, 32:] = 255
    for i in range(3):
        pixels = np.array(Image.open(folder / f"{i}.png"))
        pixels[:, :32] = 17  # scribbled over, where the mask is black
        Image.fromarray(pixels).save(other / f"{i}.png")
        Image.fromarray(mask).save(masks / f"{i}.png")
    common = ("--method", "image2stylegan", *SHORT, "--masks", masks)
    ok(capsys, checkpoint, folder, *common, "--out", tmp_path / "a")
    ok(capsys, checkpoint, other, *common, "--out", tmp_path / "b")
    ok(capsys, checkpoint, other, *common[:-2], "--out", tmp_path / "c")
    a, b, c = (torch.load(tmp_path / n / "latents.pt", weights_only=True) for n in "abc")
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert (b - c).abs().max() > 1e-3

    def wrong(words, name, image):
        image.save(masks / name)
        refused(capsys, words, checkpoint, folder, *common, "--out", tmp_path / "d")
        (masks / name).unlink()
        assert not (tmp_path / "d").exists()

    wrong("--masks with 7.png, which fits no image; expected the name of one, e.g. 0.png", "7.png",
          Image.fromarray(mask))  # fmt: skip
    wrong("the mask 2.png of 64 x 32 px; expected its image's 64 x 64 px", "2.png",
          Image.fromarray(mask[:, :32]))  # fmt: skip
    wrong("the mask 2.png, which is black everywhere; expected white where the image counts",
          "2.png", Image.fromarray(mask * 0))  # fmt: skip
    edges, wide = np.zeros((64, 96), dtype=np.uint8), tmp_path / "wide"
    edges[:, :10] = 255  # white that the crop to the middle leaves out
    wide.mkdir()
    Image.fromarray(edges).convert("RGB").save(wide / "2.png")
    (masks / "0.png").unlink(), (masks / "1.png").unlink()
    Image.fromarray(edges).save(masks / "2.png")
    common = (*common[:-1], masks)
    refused(capsys, "the mask 2.png, which is black in what is left of it at 64 x 64 px; expected",
            checkpoint, wide, *common, "--out", tmp_path / "d")  # fmt: skip
    assert not (tmp_path / "d").exists()
    ok(capsys, checkpoint, wide, *common, "--out", tmp_path / "e", "--fit", "pad")
    for file in masks.iterdir():
        file.unlink()
    refused(capsys, "--masks without any image", checkpoint, folder, *common, "--out",
            tmp_path / "d")  # fmt: skip


def test_what_is_in_a_box_is_pasted_and_only_it_counts(trained, folder, tmp_path, capsys):
    """As Python's `diffuse`, with the context of the same name, and with one for all."""
    checkpoint, _ = trained
    scenes, one = tmp_path / "scenes", tmp_path / "one"
    scenes.mkdir(), one.mkdir()
    for i in range(3):
        picture(10 + i, (64, 64)).save(scenes / f"{i}.png")
    picture(11, (64, 64)).save(one / "scene.png")
    box = (0.25, 0.75, 0.125, 0.5)
    common = (checkpoint, folder, "--method", "domain_regularised", *SHORT, "--box",
              ",".join(map(str, box)))  # fmt: skip
    ok(capsys, *common, "--paste", scenes, "--out", tmp_path / "a")
    ok(capsys, *common, "--paste", one, "--out", tmp_path / "b")
    first, second = (torch.load(tmp_path / n / "latents.pt", weights_only=True) for n in "ab")
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=1e-4)
    assert not torch.allclose(first[0], second[0], rtol=0, atol=1e-4)

    def image(path):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
        return to_unit(pixels)

    model = open_model(checkpoint).model
    invert = build_inversions(config_of("domain_regularised", None, ["steps=2"]).inversion, model)
    expected = diffuse(
        invert["domain_regularised"], image(folder / "1.png"), image(scenes / "1.png"),
        keys=["1.png"], seeds=[derive_seed(0, "inversion", "1.png")], box=box,
    ).wp[0]  # fmt: skip
    torch.testing.assert_close(expected, first[1], rtol=0, atol=1e-4)
    other = ("--out", tmp_path / "a", "--paste", one)
    refused(capsys, "begun with other paste; expected the same command", *common, *other)


def test_contexts_that_cannot_be(trained, folder, tmp_path, capsys):
    out = ("--out", tmp_path / "o")
    common = (trained[0], folder, *out, "--method", "domain_regularised", *SHORT)
    scenes, empty = tmp_path / "scenes", tmp_path / "empty"
    scenes.mkdir(), empty.mkdir()
    for name in ("0.png", "1.png"):
        picture(0, (64, 64)).save(scenes / name)
    refused(capsys, "scenes without a context for 2.png; expected an image of the same name, or",
            *common, "--paste", scenes)  # fmt: skip
    refused(capsys, "empty without any image; expected a context for each image, or one for all",
            *common, "--paste", empty)  # fmt: skip
    for box in ("0.5,0.2,0,1", "0,1,0", "a,1,0,1", "0,nan,0,1", "-0.1,1,0,1"):
        refused(capsys, f"--box {box}; expected top < bottom and left < right", *common, "--paste",
                folder, f"--box={box}")  # fmt: skip
    refused(capsys, "the box [0.5, 0.501, 0.0, 1.0]; expected top < bottom", *common, "--paste",
            folder, "--box", "0.5,0.501,0,1")  # fmt: skip
    refused(capsys, "--box without --paste; expected both", *common, "--box", "0,1,0,1")
    refused(capsys, "--masks with --paste, whose box is the mask; expected one of them", *common,
            "--paste", folder, "--masks", folder)  # fmt: skip
    assert not (tmp_path / "o").exists()


def test_an_image_without_a_finite_loss_is_told(trained, folder, tmp_path, capsys, monkeypatch):
    losses = Image2StyleGAN.losses

    def failing(self, target, leaves, known, image, step):
        values = losses(self, target, leaves, known, image, step)
        bad = torch.tensor([float("nan") if key == "1.png" else 0.0 for key in target.key])
        return values | {"mse": values["mse"] + bad}

    monkeypatch.setattr(Image2StyleGAN, "losses", failing)
    out = tmp_path / "o"
    said = ok(capsys, trained[0], folder, "--method", "image2stylegan", *SHORT, "--out", out)
    assert "no finite number: 1 (1.png); what was found before is kept" in said
    assert content(out)["not_finite"] == ["1.png"] and content(out)["steps"] == [2, 0, 2]
    assert (out / "loss.csv").read_text().splitlines()[2] == "1.png,,"
    assert math.isfinite(content(out)["loss"]["last"])  # of the others


def test_refusals(trained, folder, tmp_path, capsys):
    checkpoint, generator = trained
    common = (checkpoint, folder, "--out", tmp_path / "o", "--method")
    refused(capsys, "--method ptii, which is not in conf/inversion; expected one of pti (the nea",
            *common, "ptii")  # fmt: skip
    refused(capsys, "--start projectr, which is not in", *common, "pti", "--start", "projectr")
    refused(capsys, "inversion.pti.steps=0; expected a whole number of at least 1", *common, "pti",
            "--set", "steps=0")  # fmt: skip
    refused(capsys, "inversion.pti.setps, which is no key of the config; expected one of", *common,
            "pti", "--set", "setps=3")  # fmt: skip
    refused(capsys, "--set steps; expected KEY=VALUE", *common, "pti", "--set", "steps")
    refused(capsys, "--size 48 with a generator of 64 px; expected 64 px or a whole part of it",
            *common, "pti", "--size", 48)  # fmt: skip
    refused(capsys, "pivot=clone; expected w_avg, random, encode or", *common, "pti", "--set",
            "inversion.pti.pivot=clone")  # fmt: skip
    refused(capsys, "methods that start projector from projector; expected one that starts from w",
            *common, "projector", "--start", "projector")  # fmt: skip
    refused(capsys, "images of 32 x 32 px for domain_regularised, whose encoder reads 64 x 64",
            *common, "domain_regularised", "--size", 32)  # fmt: skip
    refused(capsys, "a pivot that changes weights of its own; expected a method that finds a code",
            *common, "clone", "--start", "pti")  # fmt: skip
    refused(capsys, "bdinvert without base_code", *common, "bdinvert")
    refused(capsys, "--method pti with shared=true on 3 images in batches of 2; expected one batch",
            *common, "pti", *SHORT, "--set", "shared=true", "--batch-size", 2)  # fmt: skip
    for option in (("--start", "w_avg"), ("--set", "steps=3"), ("--size", 64), ("--masks", folder),
                   ("--paste", folder)):  # fmt: skip
        refused(capsys, f"{option[0]} with the encoder alone; expected --method NAME",
                *common[:-1], *option)  # fmt: skip
    assert not (tmp_path / "o").exists()


def test_an_inversion_opens_as_its_tuned_generator(trained, folder, tmp_path, capsys):
    """And is exported as one; another generator, another inversion and an f are refused."""
    checkpoint, generator = trained
    out = tmp_path / "o"
    ok(capsys, checkpoint, folder, "--out", out, "--method", "pti", *SHORT, "--set", "lr=0.01")
    file = out / "inversions" / "0.safetensors"
    opened = open_model(file)
    assert opened.words == "StyleGAN2Generator of 64 px, as 'pti' left it for '0.png'"
    model, (found, about) = open_model(checkpoint).model, read_inversion(file)
    with torch.no_grad():
        expected = model.render(found)
        torch.testing.assert_close(opened.generator.synthesis(found.wp), expected, rtol=0,
                                   atol=1e-5)  # fmt: skip
    forms = {"nvidia-state": "n.pt", "nvidia-pkl": "stylegan2.pkl", "rosinality": "r.pt"}
    for form, name in (forms | {"safetensors": "tuned.safetensors"}).items():
        made = tmp_path / name
        assert main(["export", str(file), "--to", form, "--out", str(made)]) == 0
        again = open_model(made).generator
        torch.testing.assert_close(again.synthesis(found.wp), expected, rtol=0, atol=1e-4)
        with np.load(tmp_path / f"{made.stem}_w.npz", allow_pickle=False) as kept:
            assert np.array_equal(kept["w"], found.wp.numpy()) and list(kept) == ["w"]
        (tmp_path / f"{made.stem}_w.npz").unlink()
    capsys.readouterr()

    def export_refused(words, path, *more):
        command = ["export", str(path), "--to", "nvidia-state", "--out", str(tmp_path / "x"), *more]
        assert main(command) == 1
        assert words in (said := capsys.readouterr().err), said

    export_refused("found in a generator with sha256", file, "--generator", str(made))
    tensors = {"wp": found.wp[0], "f": torch.zeros(8, 8, 8)}
    odd = tmp_path / "odd.safetensors"
    write_safetensors(odd, tensors, about)
    export_refused("which has an f (BDInvert's)", odd)
    write_safetensors(odd, {"wp": found.wp[0], "weights.x": torch.zeros(2)}, about)
    export_refused("odd.safetensors with weights of 'x' [2]; expected what the generator has", odd)
    write_safetensors(odd, {"wp": found.wp[0], "x": torch.zeros(2)}, about)
    export_refused("odd.safetensors with a tensor 'x'; expected wp, f, noise.*", odd)
    write_safetensors(odd, {"wp": found.wp[0]}, about | {"generator_source": str(odd)})
    export_refused("an inversion, as the generator of another one", odd)
    write_safetensors(odd, {"wp": found.wp[0]}, {"format": FORMAT})
    export_refused("which names no generator; expected the generator's file", odd)
