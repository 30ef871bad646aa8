"""`ganinv shard` from each source, and `ganinv verify`, as a user calls them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from ganinv.cli.main import main
from ganinv.dataset.index import Reader, read_index


def picture(i: int, kind: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (i, 2 * i, 3 * i)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "my images"
    (source / "b").mkdir(parents=True)
    for i in range(10):
        (source / ("b" if i % 2 else "") / f"im {i}.v1.png").write_bytes(picture(i))
    (source / "notes.txt").write_text("not an image")
    return source


def names(folder: Path) -> list[str]:
    reader = Reader(read_index(folder), open_files=4)
    return [reader.json(i)["source"] for i in range(len(reader.index))]


def test_folder_with_held_out_images(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["shard", str(folder), "--out", str(out), "--size", "8", "--val", "3", "--test", "2"]
    command += ["--shard-size", "2", "--format", "png"]
    assert main(command) == 0
    parts = [names(out / split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [5, 3, 2]
    assert len(set(sum(parts, []))) == 10
    index = read_index(out / "train")
    assert index.size == (8, 8) and [s["samples"] for s in index.raw["shards"]] == [2, 2, 1]
    key, image = Reader(index, open_files=1).image(0)
    i = int(names(out / "train")[0].split("im ")[1][0])
    assert image[:, 4, 4].tolist() == [i, 2 * i, 3 * i] and " " not in key and "." not in key
    assert main(command) == 0  # found done
    assert main([*command, "--seed", "1"]) == 1


def test_zip_keeps_the_aspect_and_lists_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for i in range(6):
            file.writestr(f"x/{i:02d}.jpg", picture(40, "JPEG", (512, 384)))
        file.writestr("x/06.jpg", picture(3, "JPEG")[:200])
        file.writestr("__MACOSX/x/._00.jpg", b"junk")
    out = tmp_path / "out"
    assert main(["shard", str(tmp_path / "a.zip"), "--out", str(out), "--size", "192x256"]) == 0
    index = read_index(out / "train")
    assert index.size == (192, 256) and len(index) == 6 and index.extension == "jpg"
    assert [name for name, _ in index.raw["failed"]] == ["x/06.jpg"]
    text = capsys.readouterr().out
    assert "could not be taken: 1" in text and "x/06.jpg: " in text
    assert "dataset.image_size=[192,256]" in text


def test_lsun_database(tmp_path: Path) -> None:
    database = lmdb.open(str(tmp_path / "lsun"), map_size=1 << 22)
    with database.begin(write=True) as transaction:
        for i in range(5):
            transaction.put(f"{i:040x}".encode(), picture(i + 9, "WEBP"))
    database.close()
    out = tmp_path / "out"
    command = ["shard", str(tmp_path / "lsun"), "--out", str(out), "--size", "8", "--split", "val"]
    assert main([*command, "--format", "webp"]) == 0
    assert names(out / "val") == [f"{i:040x}" for i in range(5)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--size", "big"], "--size big; expected N or HEIGHTxWIDTH in px"),
        (["--quality", "0"], "--quality 0; expected 1 to 100"),
        (["--shard-size", "0"], "--shard-size 0; expected at least 1"),
        (["--val", "10"], "10 images held out of 10; expected fewer"),
        (["--val", "1", "--split", "val"], "--val 1 with --split val; expected"),
    ],
)
def test_refusals(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    words: str,
) -> None:
    out = tmp_path / "out"
    assert main(["shard", str(folder), "--out", str(out), "--size", "8", *change]) == 1
    assert words in capsys.readouterr().err and not out.exists()


def test_sources_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.tar").write_bytes(b"x")
    cases = {"nowhere": "no file or folder", "empty": "holds no images", "file.tar": "not a zip"}
    for name, words in cases.items():
        command = ["shard", str(tmp_path / name), "--out", str(tmp_path / "out"), "--size", "8"]
        assert main(command) == 1
        assert words in capsys.readouterr().err


@pytest.fixture
def written(folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    command = ["shard", str(folder), "--out", str(out), "--size", "8", "--val", "2"]
    assert main([*command, "--shard-size", "3", "--format", "png"]) == 0
    return out


def test_verify_is_silent_about_a_good_set(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["verify", str(written)]) == 0
    text = capsys.readouterr().out
    assert "BAD" not in text and "train: 3 tars, 8 images: good" in text and "val: 1 tars" in text


def test_verify_names_the_culprits(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = read_index(written / "train")
    tars = [written / "train" / name for name in train.names]
    tars[0].write_bytes(tars[0].read_bytes()[: int(train.offsets[1, 0]) + 10])  # cut in sample 1
    offset = int(train.offsets[4, 0])  # spoil sample 1 of the second tar
    data = bytearray(tars[1].read_bytes())
    data[offset + 20 : offset + 40] = bytes(20)
    tars[1].write_bytes(data)
    tars[2].unlink()
    key = Reader(train, open_files=1)
    capsys.readouterr()
    assert main(["verify", str(written)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    text = "\n".join(lines)
    assert "000000.tar: truncated" in text and "000001.tar: its bytes changed" in text
    assert "000002.tar: missing (2 samples)" in text
    assert "000000.tar sample 1: the tar ends before it" in text
    assert "000000.tar sample 0" not in text and "000001.tar sample 0" not in text
    assert "000001.tar sample 1 (" in text and ".png): " in text
    assert key.index is train
    assert main(["verify", str(written / "val")]) == 0


def test_verify_refuses_what_is_no_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    assert "holds no set of shards" in capsys.readouterr().err
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "000000.tar").write_bytes(b"")
    assert main(["verify", str(tmp_path)]) == 1
    assert "train has no index.json" in capsys.readouterr().err


def test_verify_sees_changed_offsets(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written / "val" / "offsets.npy"
    offsets = np.load(path)
    offsets[0, 0] += 512
    np.save(path, offsets)
    assert main(["verify", str(written / "val")]) == 1
    text = capsys.readouterr().out
    assert "offsets.npy: changed" in text and "something else at its place" in text


def test_the_command_is_recorded(written: Path) -> None:
    raw = json.loads((written / "train" / "index.json").read_text())
    assert raw["origin"]["command"].startswith("ganinv shard '")
    assert "--shard-size 3" in raw["origin"]["command"]


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "shard" in text and "verify" in text
