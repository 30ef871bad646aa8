"""`ganinv align` as a user calls it, on a real photograph in every form."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut, coffee

import ganinv.cli.align
from ganinv.cli._align_batch import Job
from ganinv.cli.main import main
from ganinv.dataset.index import Reader, read_index
from tests.cli.test_invert import bundled, result

FIVE = [[204, 102], [247, 103], [224, 126], [204, 139], [246, 141]]  # astronaut, read off by eye


def write_photos(folder: Path) -> None:
    """The astronaut in every form that a photo has, and what is no photo of a face."""
    (folder / "sub").mkdir(parents=True)
    photo = Image.fromarray(astronaut())
    photo.save(folder / "plain.png")
    photo.convert("L").save(folder / "grey.png")
    photo.convert("CMYK").save(folder / "sub" / "print.jpg", quality=95)
    exif = Image.Exif()
    exif[0x112] = 8
    photo.rotate(-90, expand=True).save(folder / "sideways.jpg", quality=97, exif=exif)
    mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop((150, 0, 420, 270))
    two = Image.new("RGB", (900, 512), "grey")
    two.paste(photo.crop((100, 0, 400, 300)).resize((450, 450)), (0, 0))
    two.paste(mirrored, (600, 100))
    two.save(folder / "two.png")
    Image.fromarray(coffee()).save(folder / "coffee.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff junk")
    (folder / "notes.txt").write_text("not a photo")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my photos") / "in"
    write_photos(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def records(out: Path) -> dict[str, dict]:
    return {
        image["source"]: image for image in json.loads((out / "align.json").read_text())["images"]
    }


@pytest.fixture(scope="module")
def aligned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the command writes and says, in one process."""
    out = tmp_path_factory.mktemp("aligned") / "out"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        command = ["align", str(photos), "--out", str(out), "--size", "64", "--processes", "1"]
        assert main(command) == 0
    return out, "\n".join(said)


def test_every_photo_is_counted_and_every_face_is_there(aligned: tuple[Path, str]) -> None:
    out, said = aligned
    files = set(content(out))
    crops = {"plain", "grey", "sub/print", "sideways", "two-0", "two-1"}
    assert files == {f"images/{name}.png" for name in crops} | {"align.json", "contact_sheet.png"}
    assert "6 faces in 5 of 7 photos" in said
    assert "without a face: 1\n  coffee.png: no face found" in said
    assert "could not be read: 1\n  broken.jpg: " in said
    assert "enlarged" not in said
    counts = json.loads((out / "align.json").read_text())["counts"]
    assert counts == {"photos": 7, "faces": 6, "aligned": 5, "no face": 1, "unreadable": 1}


def test_every_form_of_the_photo_gives_the_same_face(aligned: tuple[Path, str]) -> None:
    out, _ = aligned
    found = records(out)
    quads = {name: np.array(record["faces"][0]["quad"]) for name, record in found.items()
             if record["faces"]}  # fmt: skip
    quads["two.png"] = quads["two.png"] / 1.5 + [100, 0]
    expected = Image.fromarray(astronaut()).crop((138, 20, 312, 192)).resize((64, 64))
    grey = np.asarray(expected.convert("L")).astype(float)
    for name, quad in quads.items():
        assert np.abs(quad - quads["plain.png"]).max() < 6, name  # of 172 px
        with Image.open(out / found[name]["faces"][0]["file"]) as picture:
            assert picture.mode == "RGB" and picture.size == (64, 64)
            other = np.asarray(picture.convert("L")).astype(float)
        mirrored = np.abs(grey[:, ::-1] - other).mean()
        assert np.abs(grey - other).mean() < 0.6 * mirrored, name


def test_align_json_says_where_each_face_is(aligned: tuple[Path, str]) -> None:
    found = records(aligned[0])
    (face,) = found["plain.png"]["faces"]
    points = np.array(face["landmarks"])
    assert points.shape == (68, 2) and np.abs(points[36:42].mean(axis=0) - FIVE[0]).max() < 5
    assert np.array(face["quad"]).shape == (4, 2) and 160 < face["side"] < 190
    assert face["file"] == "images/plain.png" and face["score"] > 1
    assert found["sideways.jpg"]["size"] == [512, 512] and found["two.png"]["size"] == [512, 900]
    larger, smaller = found["two.png"]["faces"]
    assert larger["side"] > 1.3 * smaller["side"] and larger["file"] == "images/two-0.png"
    assert found["coffee.png"]["happened"] == "no face" and found["coffee.png"]["faces"] == []
    assert found["broken.jpg"]["happened"] == "unreadable" and "size" not in found["broken.jpg"]


def test_the_contact_sheet_shows_photos_and_crops(aligned: tuple[Path, str]) -> None:
    with Image.open(aligned[0] / "contact_sheet.png") as file:
        sheet = file.convert("RGB")
    colours = {colour: count for count, colour in sheet.getcolors(1 << 20)}
    assert sheet.width == 1334 and sheet.height > 300
    assert colours[(255, 220, 0)] > 500  # quads
    assert colours[(0, 255, 120)] > 6 * 20  # points
    assert colours[(255, 110, 110)] > 4  # the words under the two that failed


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_writes_the_same(
    processes: int,
    aligned: tuple[Path, str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ganinv.cli._align_batch.BATCH", 2)
    command = ["align", str(photos), "--out", str(tmp_path / "out"), "--size", "64"]
    if processes == 3:  # the points that were found give the same crops at no cost
        command += ["--landmarks", str(aligned[0] / "align.json")]
    assert main([*command, "--processes", str(processes)]) == 0
    one, several = content(aligned[0]), content(tmp_path / "out")
    if processes == 3:
        for files in (one, several):
            del files["align.json"], files["contact_sheet.png"]  # score and words differ
    assert one == several


def test_largest_takes_one(aligned: tuple[Path, str], photos: Path, tmp_path: Path, capsys) -> None:
    points = ["--landmarks", str(aligned[0] / "align.json")]
    out = tmp_path / "out"
    assert (
        main(["align", str(photos), "--out", str(out), "--size", "64", "--largest", *points]) == 0
    )
    assert "not taken: 1 smaller faces (--largest)" in capsys.readouterr().out
    assert content(out)["images/two.png"] == content(aligned[0])["images/two-0.png"]
    assert records(out)["two.png"]["not_taken"] == 1


def test_a_stopped_command_goes_on_and_a_finished_one_is_found_done(
    photos: Path, aligned: tuple[Path, str], tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("ganinv.cli._align_batch.BATCH", 2)
    points = ["--landmarks", str(aligned[0] / "align.json"), "--processes", "1", "--size", "64"]
    command = ["align", str(photos), "--out", str(tmp_path / "out"), *points]
    batch, done = ganinv.cli.align.align_batch, []

    def stopping(job: Job, number: int) -> int:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(number)
        return batch(job, number)

    monkeypatch.setattr(ganinv.cli.align, "align_batch", stopping)
    assert main(command) == 130
    assert "run the same command again to go on" in capsys.readouterr().out
    assert not (tmp_path / "out" / "align.json").exists()
    assert main([*command[:-1], "32"]) == 1
    assert "begun with other size" in capsys.readouterr().err

    monkeypatch.setattr(ganinv.cli.align, "align_batch", lambda *a: done.append(a[1]) or batch(*a))
    assert main(command) == 0
    assert "going on after 2 of 4 batches" in capsys.readouterr().out and done == [0, 1, 2, 3]
    assert main(command) == 0 and len(done) == 4  # found done, and says what it had said
    assert "6 faces in 5 of 7 photos" in capsys.readouterr().out
    assert main([*command[:2], "--out", str(tmp_path / "fresh"), *points]) == 0
    assert content(tmp_path / "fresh") == content(tmp_path / "out")


def test_no_face_at_all_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(coffee()).save(tmp_path / "coffee.png")
    command = [
        "align",
        str(tmp_path / "coffee.png"),
        "--out",
        str(tmp_path / "out"),
        "--size",
        "32",
    ]
    for _ in range(2):  # also when found done
        assert main(command) == 1
        assert "0 faces in 0 of 1 photos" in (said := capsys.readouterr().out)
        assert "no photo gave a face: try --min-score 0" in said
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_one_photo_and_a_zip_file(photos: Path, tmp_path: Path, capsys) -> None:
    points = tmp_path / "points.csv"
    row = ",".join(str(value) for point in FIVE for value in point)
    points.write_text(f"plain.png,{row}\nin/plain.png,{row}\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(photos / "plain.png", "in/plain.png")
        file.write(photos / "coffee.png", "in/coffee.png")
    for source, folder, name in [
        (photos / "plain.png", "one", "plain.png"),
        (tmp_path / "a.zip", "zip", "in/plain.png"),
    ]:
        command = ["align", str(source), "--out", str(tmp_path / folder), "--size", "256"]
        assert main([*command, "--landmarks", str(points)]) == 0
        with Image.open(tmp_path / folder / "images" / name) as picture:
            assert picture.size == (256, 256)
    said = capsys.readouterr().out
    assert "enlarged: 1 crops have fewer than 256 px in the photo" in said
    assert "in/coffee.png: not in points.csv" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "8"], "--size 8; expected 16 to 4096 px"),
        (["--processes", "0"], "--processes 0; expected at least 1"),
        (["--min-score", "99"], "--min-score 99.0; expected -1 to 10"),
        (["--detect-size", "9"], "--detect-size 9; expected 64 to 8192 px"),
        (["--landmarks", "x.json", "--min-score", "0"], "--landmarks with --min-score; expected"),
        (["--landmarks", "x.json"], "no file x.json"),
    ],
)
def test_options_without_sense(
    options: list[str], words: str, photos: Path, tmp_path: Path, capsys
) -> None:
    assert main(["align", str(photos), "--out", str(tmp_path / "out"), *options]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_folders_that_will_not_do(photos: Path, tmp_path: Path, capsys) -> None:
    assert main(["align", str(photos), "--out", str(photos / "faces")]) == 1
    assert "inside of" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert main(["align", str(photos), "--out", str(tmp_path / "mine")]) == 1
    assert "which holds other files" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["align", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert "holds no images" in capsys.readouterr().err
    (tmp_path / "mine" / "align.json").write_text("[]")
    assert main(["align", str(photos), "--out", str(tmp_path / "mine")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "points.json").write_text(json.dumps({"elsewhere/plain.png": FIVE}))
    points = ["--landmarks", str(tmp_path / "points.json")]
    assert main(["align", str(photos), "--out", str(tmp_path / "out"), *points]) == 1
    assert "has points for 'elsewhere/plain.png'" in capsys.readouterr().err


def test_a_process_that_is_killed(
    photos: Path, aligned: tuple[Path, str], tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("ganinv.cli._align_batch.BATCH", 2)
    points = ["--landmarks", str(aligned[0] / "align.json"), "--size", "32", "--processes", "2"]
    command = ["align", str(photos), "--out", str(tmp_path / "out"), *points]
    with monkeypatch.context() as patch:
        patch.setattr("ganinv.dataset.align.crop", lambda *_: os._exit(9))
        assert main(command) == 1
    assert "again with fewer --processes; it goes on" in capsys.readouterr().err
    assert main(command) == 0


def test_a_full_disk(photos: Path, aligned: tuple[Path, str], tmp_path: Path, monkeypatch, capsys):
    points = ["--landmarks", str(aligned[0] / "align.json"), "--size", "32", "--processes", "1"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ganinv.cli._align_batch._write", full)
    assert main(["align", str(photos), "--out", str(tmp_path / "out"), *points]) == 1
    assert "No space left on device; expected a disk with room" in capsys.readouterr().err


def test_two_at_once(photos: Path, aligned: tuple[Path, str], tmp_path: Path, monkeypatch, capsys):
    points = ["--landmarks", str(aligned[0] / "align.json"), "--size", "32", "--processes", "1"]
    command = ["align", str(photos), "--out", str(tmp_path / "out"), *points]
    codes = []

    def meanwhile(*_: object) -> int:
        codes.append(main(command))
        raise KeyboardInterrupt

    monkeypatch.setattr(ganinv.cli.align, "align_batch", meanwhile)
    assert main(command) == 130 and codes == [1]
    assert "which another ganinv align is writing" in capsys.readouterr().err


# ------------------------------------------------------------------ --align elsewhere


def test_shard_align_takes_the_largest_faces(
    photos: Path, aligned: tuple[Path, str], tmp_path: Path, capsys
) -> None:
    out = tmp_path / "set"
    command = ["shard", str(photos), "--out", str(out), "--size", "64", "--format", "png"]
    points = ["--landmarks", str(aligned[0] / "align.json")]
    assert main([*command, "--align", *points]) == 0
    said = capsys.readouterr().out
    assert "could not be taken: 2" in said and "coffee.png: no face found" in said
    reader = Reader(read_index(out / "train"), open_files=1)
    got = {reader.json(i)["source"]: reader.image(i)[1] for i in range(len(reader.index))}
    crops = {"plain.png": "plain", "grey.png": "grey", "sideways.jpg": "sideways",
             "sub/print.jpg": "sub/print", "two.png": "two-0"}  # fmt: skip
    assert got.keys() == crops.keys()
    for name, crop in crops.items():
        with Image.open(aligned[0] / "images" / f"{crop}.png") as picture:
            assert (got[name].permute(1, 2, 0).numpy() == np.asarray(picture)).all()
    assert reader.index.raw["parameters"]["align"]["detector"] == "file"
    assert main([*command, "--align", *points]) == 0  # found done
    assert main(command) == 1
    assert "a set written with align=" in capsys.readouterr().err
    assert main([*command, *points]) == 1
    assert "--landmarks without --align" in capsys.readouterr().err
    sources = ["--source", str(photos), "--kind", "grey"]
    assert main([*command[:3], str(tmp_path / "b"), "--size", "64", "--align", *sources]) == 1
    assert "--align with --source; expected one of them" in capsys.readouterr().err


def test_invert_align_inverts_the_largest_faces(
    photos: Path, aligned: tuple[Path, str], tmp_path: Path, capsys
) -> None:
    bundled(tmp_path, input_nc=3)
    points = ["--landmarks", str(aligned[0] / "align.json")]
    command = ["invert", str(tmp_path / "m.safetensors"), str(photos), "--device", "cpu", "--out"]
    assert main([*command, str(tmp_path / "a"), "--align", *points]) == 0
    assert "coffee.png: no face found" in capsys.readouterr().out
    codes, names, failed = result(tmp_path / "a")
    assert len(names) == 5 and [name for name, _ in failed] == ["broken.jpg", "coffee.png"]
    crops = [*command[:2], str(aligned[0] / "images"), *command[3:]]
    assert main([*crops, str(tmp_path / "b")]) == 0
    expected, theirs, _ = result(tmp_path / "b")
    for name, crop in (("plain.png", "plain.png"), ("two.png", "two-0.png")):
        code = codes[names.index(name)]
        torch.testing.assert_close(code, expected[theirs.index(crop)], rtol=0, atol=1e-5)
    assert main([*command, str(tmp_path / "a")]) == 1
    assert "begun with other images_sha256, align" in capsys.readouterr().err
    maps = [*command, str(tmp_path / "c"), "--task", "segmentation", "--align", *points]
    assert main(maps) == 1
    assert "--align with a task that reads labels; expected photos" in capsys.readouterr().err


stems = st.text(st.sampled_from("a-01"), min_size=1, max_size=5)


@given(st.sets(stems, min_size=1, max_size=12))
def test_no_two_faces_have_one_name(names: set[str]) -> None:
    """Whichever photos turn out to show several faces."""
    job = Job(None, None, Path("out"), sorted(f"{name}.png" for name in names), 64, False)
    files = list(job.targets.values())
    files += [f"{prefix}{i}.png" for prefix in job.numbered.values() for i in (0, 1, 10, 11)]
    assert len(set(files)) == len(files)


def test_names_of_several_faces() -> None:
    job = Job(None, None, Path("out"), ["a-0.jpg", "a.jpg", "b.jpg", "b.png", "c/d.png"], 64, False)
    expected = {"a-0.jpg": "a-0-", "a.jpg": "a--", "b.jpg": "b.jpg-", "b.png": "b.png-"}
    assert job.numbered == expected | {"c/d.png": "c/d-"}


def test_the_sheet_of_many_photos_is_even() -> None:
    job = Job(None, None, Path("out"), [f"{i:04d}.png" for i in range(1000)], 64, False)
    shown = sorted(job.shown)
    assert len(shown) == 60 and shown[0] == 0 and shown[-1] >= 980
    assert {b - a for a, b in zip(shown, shown[1:], strict=False)} <= {16, 17}
