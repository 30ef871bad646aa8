"""FFHQ's crop: a photo and the points of a face in it -> the square in which eyes and mouth lie
where they lie in FFHQ and CelebA-HQ. A generator trained on those makes only faces that lie so.

Source: the oriented square is appendix C of Progressive GAN (arXiv 1710.10196); FFHQ (arXiv
1812.04948, appendix A) took it over. Order, rounding and the constants of shrinking and padding are
those of the procedure released with FFHQ.

    e0 e1     eyes, left and right as one sees them in the picture: complex numbers x + iy
    m0 m1     corners of the mouth, so too
    x', y'    from eye to eye; from the mouth up to the eyes
    c         centre, a tenth of the way from the eyes to the mouth
    s         side = max(4 |x'|, 3.6 |y'|)
    quad      float64 [4,2]: top left, bottom left, bottom right, top right corner

Coordinates are pixels (x, y), y down; an integer is the centre of a pixel, (0, 0) of the first.

Differs from the released procedure in: the quad is sampled at four times the size wanted, whatever
that is, and reduced by Lanczos; released: at 4096 px for 1024, which is the same.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np
from PIL import Image

EYES_68 = slice(36, 42), slice(42, 48)  # of the 68 points: six around each eye
MOUTH_68 = 48, 54
EYES_5, MOUTH_5 = (0, 1), (3, 4)  # of five: eyes, nose, corners of the mouth (MTCNN, RetinaFace)
SAMPLES = 4  # a side of the crop is sampled at so many points a pixel
LEAST_SIDE = 8.0  # px of the photo; below it there is nothing to see


def eyes_and_mouth(points: np.ndarray) -> tuple[complex, complex, complex, complex]:
    """Points of a face [68,2] or [5,2] -> e0, e1, m0, m1.

    Raises:
        ValueError: another number of points, or one that is not finite.
    """
    if points.shape not in ((68, 2), (5, 2)):
        raise ValueError(
            f"points of a face of shape {list(points.shape)} instead of 68 or 5 (x, y)"
        )
    if not np.isfinite(points).all():
        raise ValueError("a point of the face is not a finite number")
    z = points[:, 0].astype(np.float64) + 1j * points[:, 1].astype(np.float64)
    if len(z) == 68:
        e0, e1 = (z[eye].mean() for eye in EYES_68)
        m0, m1 = (z[corner] for corner in MOUTH_68)
    else:
        e0, e1, m0, m1 = z[[*EYES_5, *MOUTH_5]]
    return complex(e0), complex(e1), complex(m0), complex(m1)


def oriented_quad(points: np.ndarray) -> np.ndarray:
    """Points of a face [68,2] or [5,2] -> its quad [4,2].

    Raises:
        ValueError: points that no face has: wrong in number, in one place, or left and right
            exchanged.
    """
    e0, e1, m0, m1 = eyes_and_mouth(points)
    eyes, mouth = (e0 + e1) / 2, (m0 + m1) / 2
    x, y = e1 - e0, eyes - mouth  # the paper's x' and y'
    c = eyes - 0.1 * y
    s = max(4.0 * abs(x), 3.6 * abs(y))
    if s < LEAST_SIDE:
        raise ValueError(f"a face of {s:.1f} px from side to side; at least {LEAST_SIDE:.0f}")
    if (x.conjugate() * -y).imag <= 0:  # seen from e0 to e1, the mouth must lie below
        raise ValueError(
            "eyes and mouth that no face has; the left eye is the one on the left of the picture, "
            "not the person's own"
        )
    x = x + 1j * y  # tilt by eyes and by mouth, weighed by their length
    x = x / abs(x) * s / 2
    y = 1j * x  # a quarter turn: from the centre down
    corners = np.array([c - x - y, c - x + y, c + x + y, c + x - y])
    return np.stack([corners.real, corners.imag], axis=1)


def side_of(quad: np.ndarray) -> float:
    """Length of a side of the square, px."""
    return float(np.hypot(*(quad[3] - quad[0])))


def check_inside(quad: np.ndarray, width: int, height: int) -> None:
    """Refuse a quad whose centre lies outside of its image: points of another image.

    Raises:
        ValueError: it does.
    """
    x, y = quad.mean(axis=0)
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise ValueError(
            f"the face's centre ({x:.0f}, {y:.0f}) lies outside of the image ({width} x {height} "
            "px, after it was turned upright)"
        )


def crop(image: Image.Image, quad: np.ndarray, size: int) -> Image.Image:
    """What lies in a quad, as RGB of size x size px.

    Where the quad reaches over the image's edge, the image is continued by its mirror image, which
    blurs towards the outside and fades into its median colour.

    Args:
        image: RGB, upright.
        quad: see `oriented_quad`; its centre must lie in the image.
        size: px.

    Raises:
        ValueError: the quad's centre lies outside of the image.
    """
    check_inside(quad, image.width, image.height)
    image, quad = _shrink(image, quad, size)
    image, quad = _cut(image, quad)
    image, quad = _pad(image, quad)
    samples = SAMPLES * size
    corners = (quad + 0.5).flatten().tolist()  # PIL counts from the pixel's corner
    image = image.transform(
        (samples, samples), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR
    )
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _shrink(image: Image.Image, quad: np.ndarray, size: int) -> tuple[Image.Image, np.ndarray]:
    """An image much finer than the crop, reduced by a whole number."""
    factor = floor(side_of(quad) / size / 2)
    if factor <= 1:
        return image, quad
    smaller = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(smaller, Image.Resampling.LANCZOS), quad / factor


def _border(quad: np.ndarray) -> int:
    return max(round(side_of(quad) * 0.1), 3)


def _bounds(quad: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that a quad touches."""
    (left, top), (right, bottom) = quad.min(axis=0), quad.max(axis=0)
    return floor(left), floor(top), ceil(right), ceil(bottom)


def _cut(image: Image.Image, quad: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """The part around the quad, so that what follows costs as little as may be."""
    border = _border(quad)
    left, top, right, bottom = _bounds(quad)
    box = (
        max(left - border, 0),
        max(top - border, 0),
        min(right + border, image.width),
        min(bottom + border, image.height),
    )
    return image.crop(box), quad - box[:2]


def _pad(image: Image.Image, quad: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """The image continued beyond its edges, where the quad reaches over them."""
    border = _border(quad)
    left, top, right, bottom = _bounds(quad)
    over = (-left, -top, right - image.width, bottom - image.height)
    pads = [max(part + border, 0) for part in over]
    if max(pads) <= border - 4:
        return image, quad
    pads = [max(part, round(side_of(quad) * 0.3)) for part in pads]
    left, top, right, bottom = pads
    mirrored = np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), "reflect")
    outside = _outside(mirrored.shape[0], mirrored.shape[1], pads)
    faded = _fade(mirrored, outside, blur=side_of(quad) * 0.02)
    return Image.fromarray(faded), quad + (left, top)


def _outside(height: int, width: int, pads: list[int]) -> np.ndarray:
    """float32 [H,W]: 1 at the outer edge, 0 where the image begins, negative inside."""
    left, top, right, bottom = pads
    y, x = np.ogrid[:height, :width]
    across = 1 - np.minimum(x / left, (width - 1 - x) / right)
    down = 1 - np.minimum(y / top, (height - 1 - y) / bottom)
    return np.maximum(across, down).astype(np.float32)


def _fade(image: np.ndarray, outside: np.ndarray, blur: float) -> np.ndarray:
    """uint8 [H,W,3]: blurred (sigma in px) from a third of a pad inside on, then to its median."""
    from scipy.ndimage import gaussian_filter

    blurred, plain = np.clip(outside * 3 + 1, 0, 1), np.clip(outside, 0, 1)
    faded = np.empty_like(image)
    for channel in range(image.shape[2]):  # one at a time: floats of a large photo are large
        value = image[:, :, channel].astype(np.float32)
        value += (gaussian_filter(value, blur) - value) * blurred
        value += (np.median(value) - value) * plain
        faded[:, :, channel] = value.round().clip(0, 255).astype(np.uint8)
    return faded
