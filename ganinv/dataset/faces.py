"""Faces in photos: who finds them, and the photos as aligned crops.

A detector is anything that gives, of an image and its name, the points of each face in it. Two come
with ganinv: dlib's (the extra `align`; nothing is fetched), and a file of points that another
program wrote.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from ganinv.core.errors import ConfigError, DataError, explain
from ganinv.dataset.align import check_inside, crop, oriented_quad, side_of
from ganinv.dataset.codec import SOURCE_FORMATS, InParts, encode, load, quiet

if TYPE_CHECKING:
    from ganinv.dataset.source import Source

MODEL = "face_recognition_models", "models/shape_predictor_68_face_landmarks.dat"
MAX_JSON, MAX_CSV = 96 << 20, 256 << 20  # bytes of a file of points
MAX_PIXELS = 89_478_485  # of a photo, from where on PIL suspects a bomb: 268 MB of RGB
NO_FACE = "no face found"


@dataclass(frozen=True)
class Face:
    """A face that was found: its points, float64 [68,2] or [5,2] in px of the upright image, and
    the detector's score, if it has one."""

    points: np.ndarray
    score: float | None = None

    @cached_property
    def quad(self) -> np.ndarray:
        """Its quad [4,2], see `align.oriented_quad`."""
        return oriented_quad(self.points)

    @property
    def side(self) -> float:
        """Length of the quad's side, px of the photo."""
        return side_of(self.quad)


class Detector(Protocol):
    """Finds faces."""

    def __call__(self, image: np.ndarray, name: str) -> list[Face]:
        """uint8 [H,W,3] RGB, upright, and the image's name -> its faces, in any order."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what it finds, as plain values; two equal ones find the same."""
        ...


class DlibDetector:
    """dlib's frontal face detector (HOG) and its 68 points, as FFHQ was made with.

    Args:
        longest: px of the longer side of the copy in which faces are looked for; smaller images are
            enlarged, at most to twice their size. A face must be 80 px wide in the copy. The points
            are then found in the image itself.
        min_score: of a face; clear ones have 1 and more. At 0, dlib's own, badges and buttons come
            along.
    """

    def __init__(self, *, longest: int, min_score: float) -> None:
        self.longest, self.min_score = longest, min_score
        self.model = dlib_model()

    def __getstate__(self) -> dict[str, Any]:
        """The models do not travel."""
        return {key: value for key, value in vars(self).items() if key != "_models"}

    @cached_property
    def _models(self) -> tuple[Any, Any]:
        import dlib

        return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(self.model))

    @property
    def settings(self) -> dict[str, Any]:
        """dlib's version and the arguments."""
        import dlib

        return {
            "detector": f"dlib {dlib.__version__}",
            "longest": self.longest,
            "min_score": self.min_score,
        }

    def __call__(self, image: np.ndarray, name: str) -> list[Face]:
        """The faces that look at the camera, more or less."""
        import dlib

        find, points_of = self._models
        height, width = image.shape[:2]
        scale = min(2.0, self.longest / max(height, width))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        copy = Image.fromarray(image).resize(small, Image.Resampling.BILINEAR, reducing_gap=2.0)
        boxes, scores, _ = find.run(np.asarray(copy), 0, self.min_score)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            edges = (box.left(), box.top(), box.right(), box.bottom())
            there = dlib.rectangle(*(round(edge / scale) for edge in edges))
            shape = points_of(image, there)
            points = np.array([(p.x, p.y) for p in shape.parts()], dtype=np.float64)
            faces.append(Face(points, round(float(score), 4)))
        return faces


def dlib_model() -> Path:
    """The file of dlib's 68 points. The package that carries it is not imported: its own code needs
    pkg_resources, which newer setuptools lack.

    Raises:
        ConfigError: dlib or the file is not there.
    """
    package, file = MODEL
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec is not None and spec.origin else None
    missing = [] if importlib.util.find_spec("dlib") else ["dlib-bin"]
    missing += [] if path is not None and path.is_file() else ["face-recognition-models"]
    if missing or path is None:
        raise ConfigError(
            explain(
                f"faces to be found without {' and '.join(missing)}",
                "dlib and its model of 68 points",
                'pip install "ganinv[align]", or give the points yourself by --landmarks FILE',
            )
        )
    return path


class LandmarksFile:
    """Points that another program has found, in a file.

    JSON: {"a/b.jpg": [[x, y], ...]} with 68 or 5 points of one face, or a list of such lists; or an
    align.json. CSV: a row a face: the image's name, then x, y of 68 or 5 points. Names are as in
    the source: paths within the folder. Coordinates are px of the upright image, 0 the centre of
    the first.

    Raises:
        DataError: the file is not there or holds anything else.
    """

    def __init__(self, path: Path) -> None:
        from ganinv.core.safe.io import sha256_file

        self.path = path
        if not path.is_file():
            raise DataError(
                explain(f"no file {path}", "a .json or .csv of points", "check the path")
            )
        is_csv = path.suffix.lower() == ".csv"
        limit = MAX_CSV if is_csv else MAX_JSON
        if path.stat().st_size > limit:
            raise DataError(
                explain(f"{path} of {path.stat().st_size >> 20} MiB", f"at most {limit >> 20} MiB",
                        "write it as .csv, or cut it into parts")
            )  # fmt: skip
        self.sha256 = sha256_file(path)
        rows = _csv_rows(path) if is_csv else _json_rows(path)
        self.points: dict[str, list[np.ndarray]] = {}
        try:
            for name, faces in rows:
                self.points.setdefault(name, []).extend(_points(name, face) for face in faces)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, csv.Error) as error:
            what = "nested without end" if isinstance(error, RecursionError) else str(error)[:200]
            raise DataError(
                explain(
                    f"{path}: {what}",
                    "of each image's name 68 or 5 points (x, y)",
                    'e.g. {"a.jpg": [[x, y], ...]}, or a row "a.jpg,x,y,x,y,..." of a .csv',
                )
            ) from error

    @property
    def settings(self) -> dict[str, Any]:
        """The file's content."""
        return {"detector": "file", "landmarks_sha256": self.sha256}

    def __call__(self, image: np.ndarray, name: str) -> list[Face]:
        """The faces that the file has for a name.

        Raises:
            ValueError: it does not know the name.
        """
        if name not in self.points:
            raise ValueError(f"not in {self.path.name}")
        return [Face(points) for points in self.points[name]]

    def check_names(self, names: list[str]) -> None:
        """Refuse a file that knows none of the images.

        Raises:
            DataError: it does not.
        """
        if names and not any(name in self.points for name in names):
            theirs = next(iter(self.points), "nothing")
            raise DataError(
                explain(
                    f"{self.path} has points for {theirs[:80]!r} and the like",
                    f"names as the source's: {names[0][:80]!r}",
                    "give the names as paths within the folder",
                )
            )


def _points(name: str, points: Any) -> np.ndarray:
    found = np.asarray(points, dtype=np.float64)
    if found.shape not in ((68, 2), (5, 2)):
        raise ValueError(f"{name[:80]!r} has points of shape {list(found.shape)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name[:80]!r} has a point that is not a finite number")
    return found


def _json_rows(path: Path) -> Iterator[tuple[str, list[Any]]]:
    data = path.read_bytes()
    if 6 * (data.count(b"[") + data.count(b"{")) > len(data) + 60:  # a point is "[1,2],"
        raise ValueError("more brackets than points have")
    if 4 * data.count(b'"') > len(data) + 1000:  # a string of 6 bytes takes 60
        raise ValueError("more text than names are")
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("not an object of names")
    if isinstance(content.get("images"), list) and "settings" in content:
        for record in content["images"]:
            yield str(record["source"]), [face["landmarks"] for face in record["faces"]]
        return
    for name, value in content.items():
        if not isinstance(value, list):
            raise ValueError(f"{name[:80]!r} has no list of points")
        several = all(
            isinstance(face, list) and isinstance(face[0], list) for face in value if face
        )
        yield name, value if several else [value]


def _csv_rows(path: Path) -> Iterator[tuple[str, list[Any]]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            try:
                values = [float(value) for value in row[1:]]
            except ValueError:
                if number == 1:
                    continue  # the columns' names
                raise ValueError(f"line {number} has something else than numbers") from None
            if len(values) not in (136, 10):
                raise ValueError(f"line {number} has {len(values)} numbers instead of 136 or 10")
            yield row[0], [np.reshape(values, (-1, 2))]


# ------------------------------------------------------------------ photos


def open_photo(data: bytes) -> Image.Image:
    """The bytes of an image file -> RGB, upright. Its size is looked at before a pixel is decoded.

    Raises:
        ValueError, OSError: see `codec.load`; or more than MAX_PIXELS.
    """
    with quiet():
        try:
            with Image.open(InParts(data), formats=SOURCE_FORMATS) as file:
                width, height = file.size
        except Image.DecompressionBombError as error:  # so large that PIL does not even say how
            raise ValueError(f"more than {MAX_PIXELS / 1e6:.0f} megapixels: {error}") from None
        except UnidentifiedImageError:
            raise ValueError("not an image of a known format") from None
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{width} x {height} px, more than {MAX_PIXELS / 1e6:.0f} megapixels: make it smaller"
        )
    return load(data)


def faces_of(image: Image.Image, name: str, detector: Detector) -> list[Face]:
    """The faces of an image that can be cropped, the largest first.

    Raises:
        ValueError: a face was found, but none that can be cropped; or the detector knows nothing of
            the image.
    """
    kept, reasons = [], []
    for face in detector(np.asarray(image), name):
        try:
            check_inside(face.quad, image.width, image.height)
            kept.append(face)
        except ValueError as error:
            reasons.append(str(error))
    if reasons and not kept:
        raise ValueError(reasons[0])
    return sorted(kept, key=lambda face: (-face.side, *face.quad[0]))


class Aligned:
    """A source whose images are the aligned crop of the largest face in another source's images.

    Args:
        source: the photos.
        detector: finds faces.
        size: px, of the crops.
    """

    def __init__(self, source: Source, detector: Detector, size: int) -> None:
        self.source, self.detector, self.size = source, detector, size

    @property
    def settings(self) -> dict[str, Any]:
        """How faces are found; the files of a set say so."""
        return self.detector.settings

    def items(self) -> list[tuple[str, str]]:
        """(name, mark) of each photo; the mark changes with the photo and how it is aligned."""
        how = json.dumps([self.size, self.settings], sort_keys=True)
        return [(name, f"{mark} {how}") for name, mark in self.source.items()]

    def left_out(self) -> list[str]:
        """The other source's."""
        return self.source.left_out()

    def read(self, name: str) -> bytes:
        """A crop, as PNG.

        Raises:
            ValueError, OSError: an image that cannot be read, or without a face.
        """
        image = open_photo(self.source.read(name))
        faces = faces_of(image, name, self.detector)
        if not faces:
            raise ValueError(NO_FACE)
        return encode(np.asarray(crop(image, faces[0].quad, self.size)), "png", 100)
