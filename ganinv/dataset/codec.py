"""Image files to pixels and back, and the one resize of a source image.

Decoders are chosen to be strict, then fast: simplejpeg refuses a JPEG that libjpeg would complete
with grey; PIL checks the checksums of PNG. (torchvision's PNG decoder was tried: a wrong checksum
ends the process.)
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import simplejpeg
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Extension = Literal["png", "jpg", "webp"]
Fit = Literal["crop", "pad"]
Mode = Literal["RGB", "L"]  # three channels, or one

EXTENSIONS: tuple[Extension, ...] = ("png", "jpg", "webp")
MAX_PIXELS = 64_000_000  # of a source image; decoded it takes four times as many bytes, at most
MAX_SCANS = 10  # of a progressive JPEG of MAX_PIXELS; each one is a pass over all pixels
# What source images may be. Formats that PIL hands to other programs are left out on purpose.
SOURCE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
MAX_PARTS, MAX_PIECES = 50_000, 400_000  # reads of a head, and of its pixels (PNG: of 8 KB each)
SLOW_CODECS = {  # of PIL's, that go from pixel to pixel in Python
    "bmp_rle": "a BMP with run lengths",
    "ppm_plain": "a PPM, PGM or PBM of numbers in letters",
}
TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of a TIFF


def encode(image: np.ndarray, extension: Extension, quality: int) -> bytes:
    """uint8 [H,W,3] RGB, or [H,W] of one channel -> the bytes of an image file.

    Args:
        image: the pixels.
        extension: png (lossless), jpg (full colour resolution) or webp.
        quality: 1 to 100, for jpg and webp.
    """
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if extension == "png":
        picture.save(buffer, "PNG")
    elif extension == "jpg":
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    else:
        picture.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def decode(
    data: bytes, extension: Extension, mode: Mode = "RGB", size: tuple[int, int] | None = None
) -> Tensor:
    """The bytes of an image file of a shard -> uint8 [3,H,W] RGB, or [1,H,W] of mode L.

    In memory it stays as it was decoded, pixel by pixel, and so does a batch of them: that is
    torch's channels_last, which the networks compute in.

    Args:
        data: the file.
        extension: its format.
        mode: RGB or L.
        size: (H, W) px that it must have, looked at before it is decoded; None: any.

    Raises:
        ValueError, OSError: the bytes are cut short or damaged; an image of another or of an
            extreme size; or of mode L, they have colours.
    """
    if extension == "jpg":
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        _check_size(data, (height, width), size)
        colours = "RGB" if mode == "RGB" else "GRAY"
        pixels = simplejpeg.decode_jpeg(data, colorspace=colours)
    else:
        image = _open(data, (extension.upper(),), size)
        if mode == "L" and image.mode != "L":
            raise ValueError(f"a {image.mode} image instead of one channel")
        pixels = np.array(image.convert(mode))
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)


@contextmanager
def quiet() -> Iterator[None]:
    """Without PIL's warnings: of sizes, for which there is a limit of our own, and of each tag of
    metadata, which are not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class InParts(io.BytesIO):
    """The bytes of an image file, of which PIL may read so many parts: it goes from chunk to chunk,
    and in some heads from byte to byte, in Python."""

    left = MAX_PARTS

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes.

        Raises:
            ValueError: too many parts.
        """
        self.left -= 1
        if self.left < 0:
            raise ValueError("more parts than an image file has; save it again")
        return super().read(size)


def _open(
    data: bytes, formats: tuple[str, ...], size: tuple[int, int] | None = None
) -> Image.Image:
    """An image whose size is reasonable; its pixels are not decoded yet."""
    if data[:4] == b"RIFF":  # PIL takes the memory for a WebP when it opens it
        _check_size(data, _webp_size(data), size)
    try:
        with quiet():
            image = Image.open(file := InParts(data), formats=formats)
    except UnidentifiedImageError:  # whose own words name an object in memory
        raise ValueError(f"not a {' or '.join(formats)} file") from None
    except Image.DecompressionBombError:
        raise ValueError(f"larger than {MAX_PIXELS // 10**6} megapixels") from None
    _check_size(data, (image.height, image.width), size)
    tags = getattr(image, "tag_v2", {})
    if TILE_WIDTH in tags or TILE_HEIGHT in tags:  # decoded whole, however small the image
        height, width = tags.get(TILE_HEIGHT), tags.get(TILE_WIDTH)
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise ValueError("a TIFF whose tiles have no size")
        _check_size(b"", (height, width), None)
    file.left = MAX_PIECES
    for codec in (tile[0] for tile in getattr(image, "tile", ())):
        if codec in SLOW_CODECS:
            raise ValueError(f"{SLOW_CODECS[codec]}, which takes minutes; save it as a PNG")
    return image


def _check_size(data: bytes, given: tuple[int, int], expected: tuple[int, int] | None) -> None:
    """Refuse, before anything is decoded, what would take more memory or time than it may."""
    if expected is not None and given != tuple(expected):
        raise ValueError(f"{tuple(given)} px instead of {tuple(expected)}")
    pixels = given[0] * given[1]
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"{given[1]:,} x {given[0]:,} px, larger than {MAX_PIXELS // 10**6} megapixels; reduce "
            "it first"
        )
    most = min(1000, MAX_PIXELS * MAX_SCANS // max(1, pixels))
    if data[:2] == b"\xff\xd8" and (scans := _scans(data, most)) > most:
        raise ValueError(f"a JPEG of {scans} scans; save it again as a baseline JPEG")


def _scans(data: bytes, most: int) -> int:
    """Marks of a scan in a JPEG; 0 where it has fewer marks of any kind than `most`, which is known
    in a tenth of the time."""
    marks = np.count_nonzero(np.frombuffer(data, np.uint8) == 0xFF)
    return data.count(b"\xff\xda") if marks > most else 0


def _webp_size(data: bytes) -> tuple[int, int]:
    """(H, W) that the head of a WebP file says.

    Raises:
        ValueError: not the head of one.
    """
    kind, head = data[12:16], data[20:30]
    if data[8:12] != b"WEBP" or len(head) < 10:
        raise ValueError("not a WEBP file, or cut short")
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    else:
        raise ValueError("not a WEBP file of a known kind")
    return height, width


def load(data: bytes) -> Image.Image:
    """The bytes of a source image -> RGB, upright; transparency is laid on white.

    Raises:
        ValueError, OSError: not an image of a known format, damaged, of more than 8 or 16 bits, or
            of more than `MAX_PIXELS`.
    """
    file = _open(data, SOURCE_FORMATS)
    with quiet():
        file.load()
        image: Image.Image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bit grey; PIL's own conversion would clip it at 255
        levels = np.asarray(image).clip(0, 65535).astype(np.uint32)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image.getchannel("A"))
        return canvas
    return image.convert("RGB")


def load_labels(data: bytes) -> Image.Image:
    """The bytes of a map of classes -> one channel whose values are the class numbers: a grey
    image's values, or a palette image's indices.

    Raises:
        ValueError, OSError: as `load`; or an image in colour, whose numbers nobody knows.
    """
    file = _open(data, SOURCE_FORMATS)
    with quiet():
        file.load()
    if file.mode not in ("L", "P", "1"):
        raise ValueError(
            f"a map of classes as a {file.mode} image; expected one channel (grey or palette)"
        )
    numbers = np.asarray(file).astype(np.uint8)  # of a palette image: its indices
    return ImageOps.exif_transpose(Image.fromarray(numbers))


def resize(image: Image.Image, size: tuple[int, int], fit: Fit, labels: bool = False) -> np.ndarray:
    """One Lanczos resize, antialiased, to uint8 [H,W,3] or [H,W]; of labels the nearest pixel.

    Args:
        image: RGB or of one channel.
        size: (H, W) in px.
        fit: crop: the largest centred part of the target's aspect; pad: the whole image, centred
            on black (label 0).
        labels: whether values are class numbers, between which nothing lies.
    """
    height, width = size
    way = Image.Resampling.NEAREST if labels else Image.Resampling.LANCZOS
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        left = (image.width - scale * width) / 2
        top = (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        return np.asarray(image.resize((width, height), way, box=box))
    scale = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new(image.mode, (width, height))
    corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(image.resize(inner, way), corner)
    return np.asarray(canvas)
