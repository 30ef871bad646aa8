"""Sets are complete or absent, written once, resumed, open to webdataset, refused when broken."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

from ganinv.core.errors import DataError
from ganinv.dataset.index import Reader, _name_in, check_files, read_index
from ganinv.dataset.shard import Failure, Plan, Sample, write_set
from tests.dataset.sets import SIZE, Grey, grey_set


def plan_of(make: object, images: int, shards: int, **parameters: object) -> Plan:
    return Plan(images, shards, make, SIZE, "png", parameters, {"command": "test"})  # type: ignore[arg-type]


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_every_sample_is_read_back_by_its_place(tmp_path: Path, extension: str) -> None:
    index = grey_set(tmp_path / "set", [3, 1, 4], extension)  # type: ignore[arg-type]
    reader = Reader(index, open_files=1)
    for i in (7, 0, 3, 4):
        key, image = reader.image(i)
        assert key == f"k{i:04d}" and image.shape == (3, *SIZE)
        assert abs(int(image[0, 3, 4]) - i) <= 2  # lossy formats
        assert reader.json(i) == {"attributes": {"grey": i}}


def test_webdataset_reads_the_tars_without_the_index(tmp_path: Path) -> None:
    index = grey_set(tmp_path / "set", [3, 4])
    urls = [str(index.folder / name) for name in index.names]
    found = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert [sample["__key__"] for sample in found] == [f"k{i:04d}" for i in range(7)]
    assert [int(sample["png"][0, 3, 0]) for sample in found] == list(range(7))
    assert found[5]["json"] == {"attributes": {"grey": 5}}


def test_the_index_says_what_the_set_is(tmp_path: Path) -> None:
    raw = grey_set(tmp_path / "set", [3, 4]).raw
    assert raw["image"] == {"height": 6, "width": 8, "format": "png"} and raw["samples"] == 7
    assert [shard["samples"] for shard in raw["shards"]] == [3, 4]
    assert all(len(shard["sha256"]) == 64 for shard in raw["shards"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]  # no lock, no partial folder


def test_the_same_plan_is_reused_and_another_is_refused(tmp_path: Path) -> None:
    first = grey_set(tmp_path / "set", [3, 4])
    before = (first.folder / "index.json").stat().st_mtime_ns
    grey_set(tmp_path / "set", [3, 4])
    assert (first.folder / "index.json").stat().st_mtime_ns == before
    with pytest.raises(DataError) as caught:
        grey_set(tmp_path / "set", [3, 5])
    assert "written with counts=[3, 4], now [3, 5]" in str(caught.value)
    assert "nothing was overwritten" in str(caught.value)
    assert len(read_index(first.folder)) == 7


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else already"):
        grey_set(tmp_path / "set", [3])
    assert (tmp_path / "set" / "mine.txt").read_text() == "mine"


class Killed:
    """Writes like Grey until a shard is reached, then dies; notes which shards it was asked for."""

    def __init__(self, at: int) -> None:
        self.at, self.asked = at, []  # type: ignore[var-annotated]

    def __call__(self, number: int) -> Iterator[Sample]:
        self.asked.append(number)
        for place, sample in enumerate(Grey([3, 3, 3], "png")(number)):
            if number == self.at and place == 1:
                raise KeyboardInterrupt
            yield sample


def test_a_killed_writer_leaves_no_set_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "set", plan_of(Killed(1), 9, 3), 1, "test")
    assert not (tmp_path / "set").exists()
    again = Killed(-1)
    index = write_set(tmp_path / "set", plan_of(again, 9, 3), 1, "test")
    assert again.asked == [1, 2]
    whole = write_set(tmp_path / "whole", plan_of(Killed(-1), 9, 3), 1, "test")
    assert index.raw == whole.raw and np.array_equal(index.offsets, whole.offsets)
    assert len(list((tmp_path / "set").iterdir())) == 5  # nothing of the first try remains


class Failing:
    """Every second image fails; the second shard holds nothing else."""

    def __call__(self, number: int) -> Iterator[Sample | Failure]:
        for i, sample in enumerate(Grey([4, 4], "png")(number)):
            yield sample if i % 2 and not number else Failure(sample.key, "broken")


class Broken(Failing):
    """Every image fails."""

    def __call__(self, number: int) -> Iterator[Failure]:
        return (Failure(f"image {i}", "no pixels") for i in range(4))


def test_failures_are_listed_and_an_empty_tar_is_left_out(tmp_path: Path) -> None:
    index = write_set(tmp_path / "set", plan_of(Failing(), 8, 2), 1, "test")
    assert len(index) == 2 and index.names == ("000000.tar",)
    assert len(index.raw["failed"]) == 6 and index.raw["failed"][0] == ["k0000", "broken"]
    assert not (tmp_path / "set" / "000001.tar").exists()
    with pytest.raises(DataError, match="none of 8 images could be taken; the first: image 0: no"):
        write_set(tmp_path / "none", plan_of(Broken(), 8, 2), 1, "test")
    assert not (tmp_path / "none").exists()


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    make = Grey([120, 90], "png")
    one = write_set(tmp_path / "one", plan_of(make, 210, 2), 1, "test")
    two = write_set(tmp_path / "two", plan_of(make, 210, 2), 2, "test")
    assert one.raw == two.raw


def test_missing_pieces_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder .*nowhere.*To fix: write one"):
        read_index(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"has no index\.json; expected a set of shards.*ganinv sha"
    ):
        read_index(tmp_path)
    index = grey_set(tmp_path / "set", [3, 4, 2])
    tar = index.folder / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:-600])
    (index.folder / "000002.tar").unlink()
    with pytest.raises(DataError) as caught:
        check_files(read_index(index.folder))
    assert "000001.tar: truncated" in str(caught.value)
    assert "000002.tar: missing (2 samples)" in str(caught.value)
    assert "ganinv verify" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 9}, "version 9"),
        ({"format": "tfrecord"}, "format 'tfrecord'"),
        ({"image": {"height": 6, "width": 8, "format": "gif"}}, "'gif'"),
        ({"shards": [{"name": "../x.tar", "samples": 7}]}, "leads out of the folder"),
        (
            {"shards": [{"name": "000000.tar", "samples": 6, "bytes": 9, "sha256": "0" * 64}]},
            "for 6 samples",
        ),
        ({"source": {"kind": "rgb", "extension": "eps", "classes": 0}}, "extension 'eps'"),
        ({"shards": None}, "cannot be used"),
    ],
)
def test_a_strange_index_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    index = grey_set(tmp_path / "set", [7])
    (index.folder / "index.json").write_text(json.dumps(index.raw | change))
    with pytest.raises(DataError, match="index.json cannot be used") as caught:
        read_index(index.folder)
    assert words in str(caught.value)


NAMES = ["000001.jpg", "a.source.png", "x" * 99, "d" * 90 + "/" + "y" * 60]


@pytest.mark.parametrize("name", NAMES)
def test_a_member_s_name_is_read_as_tarfile_reads_it(name: str) -> None:
    """Quickly of what ganinv writes, by tarfile of all else; a changed byte is never overlooked."""
    member = tarfile.TarInfo(name)
    member.size = 38_000
    header = member.tobuf(tarfile.USTAR_FORMAT)
    assert _name_in(header, 38_000) == tarfile.TarInfo.frombuf(header, "utf-8", "strict").name
    with pytest.raises(ValueError, match="something else at its place"):
        _name_in(header, 38_001)
    for at in (0, 100, 124, 130, 135, 148, 153, 257, 344, 345, 511):
        changed = header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :]
        try:
            known = tarfile.TarInfo.frombuf(changed, "utf-8", "strict")
        except tarfile.TarError:
            with pytest.raises(ValueError, match="something else at its place"):
                _name_in(changed, 38_000)
        else:
            assert known.size == 38_000 and _name_in(changed, 38_000) == known.name
