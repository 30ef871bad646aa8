"""`ganinv invert`: codes and pictures of every image, in any batches and processes, resumed after a
stop; what cannot be read is named, and nothing is written over."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import ganinv
from ganinv.cli._inputs import targets as targets_of
from ganinv.cli._inverting import Inverter
from ganinv.cli.main import main
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.safe.io import sha256_file
from ganinv.evaluation.open import load_trained
from ganinv.generator.importer.bundle import save_bundle
from ganinv.interop import bundle
from tests.cli import commands
from tests.interop.models import TINY, model_of, stylegan2


def picture(seed, size):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven images in two folders, and one that is broken."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    for i in range(5):
        picture(i, (64, 64)).save(folder / f"{i}.png")
    picture(5, (80, 64)).save(folder / "sub/wide photo.png")
    picture(6, (64, 64)).save(folder / "sub/7.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    return folder


def ok(capsys, *arguments):
    return commands.ok(capsys, "invert", *arguments)


def refused(capsys, words, *arguments):
    commands.refused(capsys, words, "invert", *arguments)


def result(out):
    codes = torch.load(out / "latents.pt", weights_only=True)
    metadata = json.loads((out / "invert.json").read_text())
    return codes, metadata["images"], metadata["failed"]


def bundled(folder, input_nc):
    """A model of random weights for images of 64 px, written as folder/m.safetensors."""
    model = model_of(
        "GradualStyleEncoder", stylegan2(64, shape=TINY), trunk="ir_se_small", input_nc=input_nc
    )
    save_bundle(folder / "g.safetensors", model.G, {}, half=False)
    model.G.sha256 = sha256_file(folder / "g.safetensors")
    model.G.source = "g.safetensors"
    bundle.write(folder / "m.safetensors", model)
    return model


NAMES = ["0.png", "1.png", "2.png", "3.png", "4.png", "sub/7.png", "sub/wide photo.png"]


def test_codes_and_pictures_are_the_method_s(trained, folder, tmp_path, capsys):
    checkpoint, _ = trained
    said = ok(capsys, checkpoint, folder, "--out", tmp_path / "o", "--batch-size", 3)
    codes, names, failed = result(tmp_path / "o")
    assert names == NAMES and codes.shape == (7, 10, 16) and codes.dtype == torch.float32
    assert "7 images, latents.pt and latents.npy [7x10x16]" in said
    assert [name for name, _ in failed] == ["broken.png"] and "broken.png" in said
    array = np.load(tmp_path / "o/latents.npy", allow_pickle=False)
    assert np.array_equal(array, codes.numpy())
    method = load_trained(checkpoint).method
    for name, code in zip(NAMES, codes, strict=True):
        image = Image.open(folder / name).convert("RGB")
        if image.width > 64:
            image = image.crop((8, 0, 72, 64))  # the centre
        x = to_unit(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
        with torch.inference_mode():
            wp = method.encode(x)
            x_hat = to_uint8(method.model.render(wp, x.shape[-2:]))[0]
        torch.testing.assert_close(code, wp[0], rtol=0, atol=1e-5)
        saved = np.array(Image.open(tmp_path / "o/images" / name)).astype(int)
        assert np.abs(saved - x_hat.permute(1, 2, 0).numpy()).max() <= 1
    assert not (tmp_path / "o/.parts").exists()
    for changes in ({"images": None}, {"failed": [1]}, {"shape": "wide"}, {"left_out": 3}):
        path = tmp_path / "o/invert.json"
        kept = path.read_text()
        path.write_text(json.dumps(json.loads(kept) | changes))
        assert main(["invert", str(checkpoint), str(folder), "--out", str(tmp_path / "o"),
                     "--batch-size", "3"]) == (0 if "shape" in changes else 1)  # fmt: skip
        said = capsys.readouterr().err
        assert "shape" in changes or "invert.json, which holds no results" in said, said
        path.write_text(kept)


@pytest.mark.slow
def test_batches_and_processes_change_nothing(trained, folder, tmp_path, capsys):
    checkpoint, _ = trained
    ok(capsys, checkpoint, folder, "--out", tmp_path / "a", "--batch-size", 2)
    ok(capsys, checkpoint, folder, "--out", tmp_path / "b", "--batch-size", 2, "--processes", 2)
    ok(capsys, checkpoint, folder, "--out", tmp_path / "c", "--batch-size", 50)
    (first, names, _), (second, *_), (third, others, _) = (result(tmp_path / k) for k in "abc")
    assert names == others == NAMES
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)
    torch.testing.assert_close(first, third, rtol=0, atol=1e-5)


def test_a_stopped_command_goes_on(trained, folder, tmp_path, capsys, monkeypatch):
    checkpoint, _ = trained
    command = (checkpoint, folder, "--out", tmp_path / "o", "--batch-size", 2)
    whole = Inverter.invert

    def stop(self, out, number):
        if number == 2:
            raise KeyboardInterrupt
        return whole(self, out, number)

    monkeypatch.setattr(Inverter, "invert", stop)
    assert main(["invert", *(str(a) for a in command)]) == 130
    said = capsys.readouterr()
    assert "run the same command again to go on" in said.out
    assert not (tmp_path / "o/latents.pt").exists()
    done = []
    monkeypatch.setattr(Inverter, "invert", lambda *given: done.append(given[2]) or whole(*given))
    words = "begun with other batch_size; expected the same command"
    refused(capsys, words, *command[:-1], 3)
    assert "going on after 2 of 4 batches" in ok(capsys, *command)
    assert done == [2, 3]
    monkeypatch.undo()
    ok(capsys, *command[:3], tmp_path / "whole", "--batch-size", 2)
    assert torch.equal(result(tmp_path / "o")[0], result(tmp_path / "whole")[0])
    assert "already done by the same command" in ok(capsys, *command)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "0.png").unlink()
    refused(capsys, "begun with other images_sha256", checkpoint, copy, *command[2:])


def test_a_bundle_and_an_official_checkpoint(trained, folder, tmp_path, capsys):
    from ganinv.interop import official

    checkpoint, _ = trained
    bundle = tmp_path / "m.safetensors"
    assert main(["export", str(checkpoint), "--to", "safetensors", "--out", str(bundle)]) == 0
    ok(capsys, checkpoint, folder, "--out", tmp_path / "a")
    ok(capsys, bundle, folder, "--out", tmp_path / "b")
    torch.testing.assert_close(result(tmp_path / "a")[0], result(tmp_path / "b")[0])
    model = model_of("WEncoder", stylegan2(8))
    official.write(tmp_path / "w.pt", model, "e4e")
    (tmp_path / "one").mkdir()
    picture(1, (256, 256)).save(tmp_path / "one/x.webp", lossless=True)
    ok(capsys, tmp_path / "w.pt", tmp_path / "one", "--out", tmp_path / "c")
    codes, names, _ = result(tmp_path / "c")
    assert names == ["x.webp"] and codes.shape == (1, 4, 512)
    assert Image.open(tmp_path / "c/images/x.png").size == (8, 8)


def test_names_that_meet_and_names_that_lead_elsewhere(trained, tmp_path, capsys):
    names = ["a.png", "a.jpg", "a.jpg.png", "../up.png", "/root.png", "b/../../c.png"]
    targets = targets_of(sorted(names))
    assert len(set(targets.values())) == len(names)
    for target in targets.values():
        assert not target.startswith("/") and ".." not in target.split("/")
    assert targets["../up.png"] == "up.png" and targets["b/../../c.png"] == "b/c.png"
    picture(0, (64, 64)).save(tmp_path / "p.png")
    archive = tmp_path / "z.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("/root.png", "a/b.png"):
            file.write(tmp_path / "p.png", zipfile.ZipInfo(name).filename)
    out = tmp_path / "o"
    ok(capsys, trained[0], archive, "--out", out)
    assert {p.name for p in (out / "images").iterdir()} == {"root.png", "a"}


def test_only_broken_images(trained, tmp_path, capsys):
    """Told, listed, and an error, also when it is asked again."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.png").write_bytes(b"no image")
    command = ["invert", str(trained[0]), str(tmp_path / "in"), "--out", str(tmp_path / "o")]
    for said in ("", "already done by the same command"):
        assert main(command) == 1
        out = capsys.readouterr()
        assert said in out.out and "could not be read: 1" in out.out
        assert "none of 1 images could be inverted; expected images that can be" in out.err
    assert result(tmp_path / "o")[0].shape == (0, 10, 16)


def test_files_that_are_no_images_by_their_names_are_counted(trained, tmp_path, capsys):
    photos = tmp_path / "in"
    photos.mkdir()
    picture(0, (64, 64)).save(photos / "a.png")
    for name in ("b.gif", "c.GIF", "d.jfif", "notes", ".hidden"):
        (photos / name).write_bytes(b"")
    said = ok(capsys, trained[0], photos, "--out", tmp_path / "o")
    assert "left out: 4 files (2 .gif, 1 .jfif, 1 without suffix), no images by" in said
    content = json.loads((tmp_path / "o/invert.json").read_text())
    assert content["left_out"] == ["b.gif", "c.GIF", "d.jfif", "notes"]
    (photos / "a.png").unlink()
    refused(capsys, "holds no images (4 files (2 .gif, 1 .jfif, 1 without suffix) in it)",
            trained[0], photos, "--out", tmp_path / "p")  # fmt: skip


def test_a_disk_that_is_full_or_read_only(trained, folder, tmp_path, capsys, monkeypatch):
    """Before anything is loaded where nothing can be written; a picture that does not fit ends it
    with what is kept."""
    (tmp_path / "file").write_text("")
    refused(capsys, "--out", trained[0], folder, "--out", tmp_path / "file" / "o")

    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("ganinv.cli._inverting.write_atomic", full)
    words = "0.png: No space left on device"
    refused(capsys, words, trained[0], folder, "--out", tmp_path / "o")
    monkeypatch.undo()
    ok(capsys, trained[0], folder, "--out", tmp_path / "o")


def test_refusals(trained, folder, tmp_path, capsys):
    checkpoint, generator = trained
    out = ("--out", tmp_path / "o")
    refused(capsys, "--batch-size 0; expected at least 1", checkpoint, folder, *out,
            "--batch-size", 0)  # fmt: skip
    refused(capsys, "--processes 0", checkpoint, folder, *out, "--processes", 0)
    refused(capsys, "a model with an encoder", generator, folder, *out)
    refused(capsys, "no file nowhere", "nowhere", folder, *out)
    refused(capsys, "no file or folder", checkpoint, tmp_path / "gone", *out)
    (tmp_path / "empty").mkdir()
    refused(capsys, "holds no images", checkpoint, tmp_path / "empty", *out)
    if not torch.cuda.is_available():
        refused(capsys, "--device cuda", checkpoint, folder, *out, "--device", "cuda")
    refused(capsys, "which holds other files", checkpoint, folder, "--out", folder)
    assert not (tmp_path / "o").exists()
    bundled(tmp_path, input_nc=1)
    assert ganinv.load(tmp_path / "m.safetensors").task.channels == 1
    words = "an encoder of 1 channels for --task image"
    refused(capsys, words, tmp_path / "m.safetensors", folder, *out, "--task", "image")


def test_label_maps_and_several_outputs_of_each(tmp_path, capsys):
    """Rows 8 of 18 on are drawn anew: a function of seed, name and output, in any batches."""
    model = bundled(tmp_path, input_nc=3)
    labels = tmp_path / "labels"
    labels.mkdir()
    for i in range(3):
        Image.fromarray(np.full((32, 32), i, dtype=np.uint8)).save(labels / f"{i}.png")
    Image.new("RGB", (32, 32)).save(labels / "coloured.png")
    file = tmp_path / "m.safetensors"
    common = [file, labels, "--task", "segmentation", "--outputs", 3]
    ok(capsys, *common, "--out", tmp_path / "a")
    codes, names, failed = result(tmp_path / "a")
    assert names == ["0.png", "1.png", "2.png"] and "map of classes as a RGB" in failed[0][1]
    pictures = sorted(p.name for p in (tmp_path / "a/images").iterdir())
    assert pictures == sorted(f"{i}{m}.png" for i in range(3) for m in ("", "-mix1", "-mix2"))
    one_hot = torch.zeros(1, 3, 64, 64)
    one_hot[:, 2] = 1
    torch.testing.assert_close(codes[2], model.encode(one_hot)[0], rtol=0, atol=1e-5)
    ok(capsys, *common, "--out", tmp_path / "b", "--batch-size", 1)
    differ = 0
    for name in pictures:
        a, b = (np.array(Image.open(tmp_path / x / "images" / name), dtype=int) for x in "ab")
        assert np.abs(a - b).max() <= 1
        own = np.array(Image.open(tmp_path / "a/images" / f"{name[0]}.png"), dtype=int)
        differ += "mix" in name and np.abs(a - own).max() > 1
    assert differ == 6
    ok(capsys, *common, "--out", tmp_path / "c", "--mix-layers", "9", "--mix-alpha", "0")
    still = [Image.open(tmp_path / "c/images" / n).tobytes() for n in ("1.png", "1-mix2.png")]
    assert still[0] == still[1]
    refused(capsys, "--mix-layers 8-10; expected layers from 0 to 9", *common, "--out",
            tmp_path / "d", "--mix-layers", "8-10")  # fmt: skip
    refused(capsys, "an encoder of 3 channels for --task sketch", file, labels, "--out",
            tmp_path / "d", "--task", "sketch")  # fmt: skip


@pytest.mark.parametrize("alpha", ["nan", "inf"])
def test_a_mix_that_is_no_number(alpha, tmp_path, capsys):
    words = ["invert", "a.ckpt", str(tmp_path), "--out", str(tmp_path / "o"), "--mix-alpha", alpha]
    assert main(words) == 1
    assert f"--mix-alpha {alpha}; expected a number. To fix: " in capsys.readouterr().err
