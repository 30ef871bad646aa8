"""Who finds faces: dlib on a real photograph, files of points; and what photos may be."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut, coffee

from ganinv.core.errors import ConfigError, DataError
from ganinv.dataset.faces import (
    Aligned,
    DlibDetector,
    Face,
    LandmarksFile,
    dlib_model,
    faces_of,
    open_photo,
)
from ganinv.dataset.source import Folder

FIVE = [[204, 102], [247, 103], [224, 126], [204, 139], [246, 141]]  # astronaut, read off by eye
EVERY = [[10.0 + i, 20.0 + i * i % 7] for i in range(68)]


@pytest.fixture(scope="module")
def dlib() -> DlibDetector:
    return DlibDetector(longest=1600, min_score=0.3)


def eyes_and_mouth(face: Face) -> np.ndarray:
    p = face.points
    return np.array([p[36:42].mean(axis=0), p[42:48].mean(axis=0), p[48], p[54]])


def test_the_astronaut_is_found(dlib: DlibDetector) -> None:
    """Where a person sees her eyes and mouth; whatever the size of the photo."""
    by_eye = np.array(FIVE)[[0, 1, 3, 4]]
    (found,) = dlib(astronaut(), "astronaut.png")
    assert found.points.shape == (68, 2) and found.score > 1
    assert np.abs(eyes_and_mouth(found) - by_eye).max() < 5
    large = Image.fromarray(astronaut()).resize((2048, 2048), Image.Resampling.BICUBIC)
    (again,) = faces_of(large, "large", dlib)
    assert np.abs(eyes_and_mouth(again) / 4 - by_eye).max() < 5
    assert np.abs(again.quad / 4 - found.quad).max() < 5
    assert faces_of(Image.fromarray(coffee()), "coffee.png", dlib) == []


def test_the_lower_the_score_the_more_faces(dlib: DlibDetector) -> None:
    """The badge on her arm is a face to dlib's own threshold."""
    lower = DlibDetector(longest=1600, min_score=0.0)
    found = faces_of(Image.fromarray(astronaut()), "", lower)
    assert len(found) == 2 and found[0].side > found[1].side and found[1].score < 0.3
    assert lower.settings != dlib.settings and "dlib" in lower.settings["detector"]


def test_a_detector_travels_without_its_models(dlib: DlibDetector) -> None:
    (found,) = dlib(astronaut(), "")
    data = pickle.dumps(dlib)
    assert len(data) < 1000
    (again,) = pickle.loads(data)(astronaut(), "")
    assert (again.points == found.points).all() and again.score == found.score


@pytest.mark.parametrize("package", ["dlib", "face_recognition_models"])
def test_without_the_extra_it_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> object:
        return None if name == package else find_spec(name)

    monkeypatch.setattr("importlib.util.find_spec", without)
    words = {"dlib": "without dlib-bin;", "face_recognition_models": "face-recognition-models;"}
    with pytest.raises(ConfigError, match=words[package]) as caught:
        DlibDetector(longest=1600, min_score=0.3)
    assert 'pip install "ganinv[align]"' in str(caught.value) and "--landmarks" in str(caught.value)


def test_the_models_package_is_not_imported() -> None:
    """Its own code needs pkg_resources."""
    assert dlib_model().stat().st_size > 90e6
    assert "face_recognition_models" not in sys.modules


# ------------------------------------------------------------------ files of points


def written(folder: Path, content: object, name: str = "points.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def csv_row(name: str, points: list[list[float]]) -> str:
    return ",".join([name, *(str(value) for point in points for value in point)])


def test_points_from_json(tmp_path: Path) -> None:
    content = {"a/one.jpg": FIVE, "two.png": [EVERY, FIVE], "none.png": []}
    found = LandmarksFile(written(tmp_path, content))
    image = np.zeros((4, 4, 3), np.uint8)
    assert [face.points.tolist() for face in found(image, "a/one.jpg")] == [FIVE]
    assert [face.points.tolist() for face in found(image, "two.png")] == [EVERY, FIVE]
    assert found(image, "none.png") == []
    with pytest.raises(ValueError, match="not in points.json"):
        found(image, "other.png")
    other = LandmarksFile(written(tmp_path, {"a/one.jpg": EVERY}, "other.json"))
    assert other.settings != found.settings


def test_points_from_csv(tmp_path: Path) -> None:
    rows = ["name,x0,y0", csv_row("ä b.jpg", FIVE), csv_row("two.png", EVERY), "",
            csv_row("two.png", FIVE), csv_row('"with, comma.png"', FIVE)]  # fmt: skip
    found = LandmarksFile(written(tmp_path, "\n".join(rows), "points.csv"))
    image = np.zeros((4, 4, 3), np.uint8)
    assert [face.points.tolist() for face in found(image, "ä b.jpg")] == [FIVE]
    assert [face.points.tolist() for face in found(image, "two.png")] == [EVERY, FIVE]
    assert len(found(image, "with, comma.png")) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", "Expecting property name"),
        ("a.json", [1, 2], "not an object of names"),
        ("a.json", {"a.png": 5}, "'a.png' has no list of points"),
        ("a.json", {"a.png": FIVE[:4]}, r"'a.png' has points of shape \[4, 2\]"),
        ("a.json", {"a.png": [*FIVE[:4], [1]]}, "points|inhomogeneous"),
        ("a.json", {"a.png": [*FIVE[:4], [1, "x"]]}, "could not convert"),
        ("a.json", {"a.png": [*FIVE[:4], [1, 10**400]]}, "too large"),
        ("a.json", {"a.png": [*FIVE[:4], [1, float("nan")]]}, "not a finite number"),
        ("a.json", {"a.png": [[]]}, r"points of shape \[1, 0\]|shape \[0\]"),
        ("a.json", {"settings": {}, "images": [{"source": "a.png"}]}, "faces"),
        ("a.json", {"settings": {}, "images": [3]}, "subscriptable"),
        ("a.json", "[     " * 200_000, "nested without end"),
        ("a.json", '{"a": ' + "[     " * 200_000, "nested without end"),
        ("a.json", '{"a": [' + "[]," * 200_000 + "[]]}", "more brackets than points have"),
        ("a.json", "\0\1\2", "Expecting value"),
        ("a.csv", csv_row("a.png", FIVE) + ",3", "line 1 has 11 numbers instead of 136 or 10"),
        (
            "a.csv",
            csv_row("a", FIVE) + "\n" + csv_row("b", [["x", 1]]),
            "line 2 has something else",
        ),
        ("a.csv", csv_row("a", [*FIVE[:4], ["inf", 1]]), "not a finite number"),
        ("a.csv", "x" * 200_000, "field larger than field limit"),
    ],
)
def test_files_that_hold_something_else(
    tmp_path: Path, name: str, content: object, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        LandmarksFile(written(tmp_path, content, name))
    assert "68 or 5 points" in str(caught.value) and len(str(caught.value)) < 700


def test_a_missing_and_an_enormous_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file .*gone.json"):
        LandmarksFile(tmp_path / "gone.json")
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(200 << 20)
    with pytest.raises(DataError, match="large.json of 200 MiB; expected at most 96 MiB"):
        LandmarksFile(tmp_path / "large.json")


def test_a_file_about_other_images(tmp_path: Path) -> None:
    found = LandmarksFile(written(tmp_path, {"photos/a.jpg": FIVE}))
    found.check_names(["b.jpg", "photos/a.jpg"])
    with pytest.raises(DataError, match="has points for 'photos/a.jpg' and the like; .*'a.jpg'"):
        found.check_names(["a.jpg"])


# ------------------------------------------------------------------ photos


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_photos_of_every_kind_are_rgb_and_upright() -> None:
    plain = Image.fromarray(astronaut()).resize((60, 40))
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was held upright: turn by 90 degrees to the right
    sideways = plain.rotate(90, expand=True)
    sixteen = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
    grey, clear = plain.convert("L"), plain.copy()
    clear.putalpha(0)
    for data, expected, levels in [
        (saved(plain, "PNG"), plain, 0),
        (saved(sideways, "PNG", exif=exif), plain, 0),
        (saved(grey, "PNG"), grey, 0),
        (saved(sixteen, "PNG"), grey, 0),
        (saved(plain.convert("CMYK"), "TIFF"), plain, 3),
        (saved(clear, "PNG"), Image.new("L", plain.size, "white"), 0),
        (saved(plain.quantize(8), "PNG"), plain.quantize(8), 0),
    ]:
        got = open_photo(data)
        assert got.mode == "RGB" and got.size == plain.size
        difference = np.asarray(got).astype(int) - np.asarray(expected.convert("RGB"))
        assert np.abs(difference).max() <= levels


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims so many pixels."""
    data = bytearray(saved(Image.new("RGB", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (claiming(12_000, 9_000), "12000 x 9000 px, more than 89 megapixels: make it smaller"),
        (claiming(60_000, 60_000), "more than 89 megapixels"),
        (b"junk", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (b"", "not an image of a known format"),
    ],
)
def test_photos_that_are_refused_before_a_pixel_is_decoded(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_photo(data)


def test_a_photo_cut_short() -> None:
    data = saved(Image.fromarray(astronaut()), "PNG")
    with pytest.raises((ValueError, OSError)):
        open_photo(data[: len(data) // 2])


class Given:
    """A detector of one's own."""

    settings = {"detector": "given"}

    def __init__(self, *faces: list[list[float]]) -> None:
        self.faces = faces

    def __call__(self, image: np.ndarray, name: str) -> list[Face]:
        assert image.dtype == np.uint8 and image.ndim == 3
        return [Face(np.array(points, dtype=float)) for points in self.faces]


def test_faces_that_cannot_be_cropped_are_left_out() -> None:
    photo = Image.fromarray(astronaut())
    small = (np.array(FIVE) / 2).tolist()
    outside, swapped = [[x + 400, y] for x, y in FIVE], [FIVE[1], FIVE[0], *FIVE[2:]]
    found = faces_of(photo, "", Given(small, outside, swapped, FIVE))
    assert [face.points.tolist() for face in found] == [FIVE, small]
    with pytest.raises(ValueError, match="lies outside of the image"):
        faces_of(photo, "", Given(outside, swapped))


def test_a_source_of_aligned_photos(tmp_path: Path) -> None:
    Image.fromarray(astronaut()).save(tmp_path / "a.png")
    source = Aligned(Folder(tmp_path), Given((np.array(FIVE) / 3).tolist(), FIVE), 64)
    picture = Image.open(io.BytesIO(source.read("a.png")))
    assert picture.size == (64, 64) and picture.format == "PNG"
    expected = Image.fromarray(astronaut()).crop((138, 20, 312, 192)).resize((64, 64))
    difference = np.asarray(picture).astype(float) - np.asarray(expected)
    assert np.abs(difference).mean() < 12  # her face, not the smaller one
    ((name, mark),) = source.items()
    ((_, other),) = Aligned(Folder(tmp_path), Given(), 32).items()
    assert name == "a.png" and mark != other
    assert pickle.loads(pickle.dumps(source)).read("a.png") == source.read("a.png")
    with pytest.raises(ValueError, match="no face found"):
        Aligned(Folder(tmp_path), Given(), 64).read("a.png")
