"""FFHQ's crop, held against the equations of its paper and against images whose crop is known."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import affine_transform
from skimage.data import astronaut
from skimage.registration import phase_cross_correlation

from ganinv.dataset.align import _pad, _shrink, crop, oriented_quad, side_of

# Eyes, nose, corners of the mouth of scikit-image's astronaut, read off by eye, px.
ASTRONAUT = np.array([[204.0, 102], [247, 103], [224, 126], [204, 139], [246, 141]])


def face(x: float, y: float, eyes: float, mouth: float, turned: float = 0.0) -> np.ndarray:
    """Five points of a face whose eyes lie `eyes` px apart around (x, y), the mouth `mouth` below,
    turned by so many degrees to the right."""
    a = radians(turned)
    turn = np.array([[cos(a), -sin(a)], [sin(a), cos(a)]])
    upright = [[-eyes / 2, 0], [eyes / 2, 0], [0, mouth / 2], [-eyes / 3, mouth], [eyes / 3, mouth]]
    return np.array(upright) @ turn.T + [x, y]


def with_68(five: np.ndarray, seed: int) -> np.ndarray:
    """68 points with those eyes, as means of six, and those corners of the mouth."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(68, 2)) * 30
    for eye, first in ((five[0], 36), (five[1], 42)):
        around = rng.normal(size=(6, 2))
        points[first : first + 6] = eye + around - around.mean(axis=0)
    points[48], points[54] = five[3], five[4]
    return points


def quad_of_the_paper(e0: np.ndarray, e1: np.ndarray, m0: np.ndarray, m1: np.ndarray) -> np.ndarray:
    """Appendix C of arXiv 1710.10196 word by word; its Rotate90 turns (x, y) to (y, -x), as y is
    measured downwards."""

    def rotate90(v: np.ndarray) -> np.ndarray:
        return np.array([v[1], -v[0]])

    x_ = e1 - e0
    y_ = (e0 + e1) / 2 - (m0 + m1) / 2
    c = (e0 + e1) / 2 - 0.1 * y_
    s = max(4.0 * np.linalg.norm(x_), 3.6 * np.linalg.norm(y_))
    x = x_ - rotate90(y_)
    x = x / np.linalg.norm(x)
    y = rotate90(x)  # up
    half = s / 2
    return np.array([c - half * x + half * y, c - half * x - half * y,
                     c + half * x - half * y, c + half * x + half * y])  # fmt: skip


@pytest.mark.parametrize("turned", [0, 7, -31, 90, 180])
@pytest.mark.parametrize(("eyes", "mouth"), [(60, 50), (40, 90), (64, 64 * 4 / 3.6)])
def test_the_quad_is_the_papers(turned: float, eyes: float, mouth: float) -> None:
    five = face(300, 200, eyes, mouth, turned) + np.random.default_rng(1).normal(size=(5, 2))
    expected = quad_of_the_paper(five[0], five[1], five[3], five[4])
    np.testing.assert_allclose(oriented_quad(five), expected, atol=1e-9)
    np.testing.assert_allclose(oriented_quad(with_68(five, 2)), expected, atol=1e-9)


def test_eyes_lie_where_they_lie_in_ffhq() -> None:
    """A face as wide as most: eyes at 384 and 640 of 1024 px, a little above the middle."""
    five = face(100, 100, 32, 34)
    top_left, _, _, top_right = quad = oriented_quad(five)
    scale = 1024 / side_of(quad)
    places = (five - top_left) * scale
    np.testing.assert_allclose(places[:2, 0], [384, 640], atol=1e-6)
    np.testing.assert_allclose(places[:2, 1], 512 - 3.4 * scale, atol=1e-6)
    assert top_right[1] == pytest.approx(top_left[1]) and side_of(quad) == pytest.approx(4 * 32)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (face(9, 9, 40, 40)[[1, 0, 2, 4, 3]], "left eye is the one on the left of the picture"),
        (np.zeros((5, 2)) + 3, "a face of 0.0 px"),
        (face(9, 9, 1, 1), "a face of 4.0 px from side to side; at least 8"),
        (np.full((5, 2), np.nan), "not a finite number"),
        (np.zeros((7, 2)), r"\[7, 2\] instead of 68 or 5"),
        (np.zeros((5, 3)), r"\[5, 3\] instead of 68 or 5"),
    ],
)
def test_points_that_no_face_has(points: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        oriented_quad(points)


def ramps(side: int) -> tuple[Image.Image, Image.Image]:
    """Red is x, green is y: a pixel says where it comes from. And the same falling: PIL rounds its
    samples down, which cancels between the two."""
    y, x = np.mgrid[:side, :side]
    rising = np.stack([x, y, 0 * x], axis=2).astype(np.uint8)
    return Image.fromarray(rising), Image.fromarray(255 - rising)


@pytest.mark.parametrize("turned", [0, 20, -75, 180])
def test_each_pixel_comes_from_its_place(turned: float) -> None:
    """Within the image nothing but the quad decides; the mean error is far below a pixel."""
    size = 48
    quad = oriented_quad(face(121.3, 126.8, 28, 30, turned))
    rising, falling = (np.asarray(crop(image, quad, size)).astype(float) for image in ramps(250))
    came_from = ((rising + 255 - falling) / 2)[:, :, :2]
    along = (np.arange(size) + 0.5) / size
    right = (quad[3] - quad[0]) * along[None, :, None]
    down = (quad[1] - quad[0]) * along[:, None, None]
    error = came_from - (quad[0] + right + down)  # px of the photo
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.05
    assert np.abs(error).max() < 0.8


def moved(image: np.ndarray, turned: float, scale: float, shift: tuple[float, float], size: int):
    """An image turned, scaled and shifted, size x size px, and the same of points (x, y)."""
    a = radians(turned)
    matrix = scale * np.array([[cos(a), -sin(a)], [sin(a), cos(a)]])  # of (x, y)
    back = np.linalg.inv(matrix)
    swapped = back[::-1, ::-1]  # scipy counts (y, x)
    offset = -(back @ np.array(shift))[::-1]
    channels = [
        affine_transform(image[:, :, i].astype(float), swapped, offset, (size, size), order=3)
        for i in range(3)
    ]
    picture = np.stack(channels, axis=2).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(picture), lambda points: points @ matrix.T + shift


def distance(a: Image.Image, b: Image.Image) -> tuple[float, float]:
    """By how many px one picture is shifted against the other, and how much it differs, levels."""
    x, y = (np.asarray(picture.convert("L")).astype(float) for picture in (a, b))
    shift, _, _ = phase_cross_correlation(x, y, upsample_factor=50)
    return float(np.abs(shift).max()), float(np.abs(x - y).mean())


@pytest.mark.parametrize(
    ("turned", "scale", "shift"),
    [(0, 1, (31, 12)), (23, 1, (120, -20)), (-40, 1.4, (-90, 230)), (11, 0.8, (40.37, 20.81))],
)
def test_a_turned_scaled_shifted_photo_gives_the_same_crop(
    turned: float, scale: float, shift: tuple[float, float]
) -> None:
    photo, points_of = moved(astronaut(), turned, scale, shift, 640)
    first = crop(Image.fromarray(astronaut()), oriented_quad(ASTRONAUT), 128)
    second = crop(photo, oriented_quad(points_of(ASTRONAUT)), 128)
    shifted, differs = distance(first, second)
    assert shifted < 0.1 and differs < 2


def test_a_photo_much_finer_than_the_crop_is_reduced_first() -> None:
    """At 32 px the quad of 172 px is read from half the photo, at scale 2 from a fifth of it."""
    photo, points_of = moved(astronaut(), 0, 2, (0, 0), 1024)
    quad = oriented_quad(points_of(ASTRONAUT))
    smaller, there = _shrink(photo, quad, 32)
    assert smaller.size == (205, 205) and 2 * 32 <= side_of(there) < 4 * 32
    np.testing.assert_allclose(there * 5, quad)
    first = crop(Image.fromarray(astronaut()), oriented_quad(ASTRONAUT), 32)
    shifted, differs = distance(first, crop(photo, quad, 32))
    assert shifted < 0.3 and differs < 5
    plain, same = _shrink(photo, quad, 172)
    assert plain is photo and same is quad


def gaussian(values: np.ndarray, sigma: float, axis: int) -> np.ndarray:
    """Convolution with a normal distribution cut at four sigma, edges mirrored, written out."""
    radius = int(4 * sigma + 0.5)
    weights = [np.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    n = values.shape[axis]
    found = np.zeros_like(values)
    for k, weight in zip(range(-radius, radius + 1), weights, strict=True):
        at = np.arange(n) + k
        at = np.abs(at + 0.5) - 0.5  # mirrored at the first pixel's outer edge
        at = (n - np.abs(n - (at + 0.5)) - 0.5).astype(int)
        found += weight / sum(weights) * np.take(values, at, axis)
    return found


def test_beyond_the_edge_lies_the_blurred_mirror_image() -> None:
    """Each pixel of the continued image, computed one by one from the description: mirror; where
    m = max(1 - min(x/left, (w-1-x)/right), 1 - min(y/top, (h-1-y)/bottom)), blurred with weight
    clip(3m + 1), then to the median with weight clip(m)."""
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (60, 70, 3)).astype(np.uint8)
    quad = oriented_quad(face(22, 25, 12, 13))  # 48 px; reaches 2 px over the left edge
    got, moved_quad = _pad(Image.fromarray(photo), quad)

    side = 48.0
    (x0, y0), (x1, y1) = np.floor(quad.min(axis=0)), np.ceil(quad.max(axis=0))
    border = max(int(np.rint(side * 0.1)), 3)
    needed = [-x0 + border, -y0 + border, x1 - 70 + border, y1 - 60 + border]
    left, top, right, bottom = (int(max(part, np.rint(side * 0.3))) for part in needed)
    w, h = 70 + left + right, 60 + top + bottom
    assert got.size == (w, h)
    np.testing.assert_allclose(moved_quad, quad + [left, top])

    def mirror(i: int, n: int) -> int:
        i = abs(i)
        return i if i < n else 2 * (n - 1) - i

    columns, rows = (
        [mirror(i - p, n) for i in range(m)] for p, n, m in ((left, 70, w), (top, 60, h))
    )
    mirrored = photo[rows][:, columns].astype(float)
    blurred = gaussian(gaussian(mirrored, side * 0.02, 0), side * 0.02, 1)
    expected = np.empty_like(mirrored)
    m = np.empty((h, w))
    for y in range(h):
        for x in range(w):
            m[y, x] = max(1 - min(x / left, (w - 1 - x) / right),
                          1 - min(y / top, (h - 1 - y) / bottom))  # fmt: skip
            weight = min(max(3 * m[y, x] + 1, 0), 1)
            expected[y, x] = mirrored[y, x] + weight * (blurred[y, x] - mirrored[y, x])
    median = np.median(expected, axis=(0, 1))
    expected += (median - expected) * np.clip(m, 0, 1)[:, :, None]
    assert np.abs(np.asarray(got).astype(float) - expected).max() <= 0.51
    assert (np.asarray(got)[m < -1 / 3] == mirrored[m < -1 / 3]).all()  # far inside: untouched
    assert (np.asarray(got)[0, 0] == median.round()).all()


def test_a_face_at_the_edge_is_the_face_of_the_larger_photo() -> None:
    whole = Image.fromarray(astronaut())
    cut = whole.crop((170, 60, 512, 512))  # through her hair, on the left
    first = np.asarray(crop(whole, oriented_quad(ASTRONAUT), 128)).astype(float)
    second = np.asarray(crop(cut, oriented_quad(ASTRONAUT - [170, 60]), 128)).astype(float)
    assert np.abs(first - second)[48:, 48:].max() <= 1
    assert np.abs(first - second)[:, :12].mean() > 5
    assert np.isfinite(second).all() and second[:, :12].std() > 1  # something, not a black bar


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (200, 2)])
def test_photos_hardly_larger_than_nothing(size: tuple[int, int]) -> None:
    quad = oriented_quad(face(size[0] / 2 - 0.5, size[1] / 2 - 1.5, 10, 10))
    assert crop(Image.new("RGB", size, "red"), quad, 16).getcolors() == [(256, (255, 0, 0))]


def test_points_of_another_image() -> None:
    quad = oriented_quad(face(300, 20, 30, 30))
    with pytest.raises(
        ValueError, match=r"centre \(300, 23\) lies outside of the image \(200 x 100"
    ):
        crop(Image.new("RGB", (200, 100)), quad, 32)
