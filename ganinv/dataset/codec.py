"""Image files to pixels and back, and the one resize of a source image.

Decoders are chosen to be strict, then fast: simplejpeg refuses a JPEG that libjpeg would complete
with grey; PIL checks the checksums of PNG. (torchvision's PNG decoder was tried: a wrong checksum
ends the process.)
"""

from __future__ import annotations

import io
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
# What source images may be. Formats that PIL hands to other programs are left out on purpose.
SOURCE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")


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


def decode(data: bytes, extension: Extension, mode: Mode = "RGB") -> Tensor:
    """The bytes of an image file of a shard -> uint8 [3,H,W] RGB, or [1,H,W] of mode L.

    Raises:
        ValueError, OSError: the bytes are cut short or damaged; or of mode L, they have colours.
    """
    if extension == "jpg":
        colours = "RGB" if mode == "RGB" else "GRAY"
        pixels = simplejpeg.decode_jpeg(data, colorspace=colours)
    else:
        image = _open(data, (extension.upper(),))
        if mode == "L" and image.mode != "L":
            raise ValueError(f"a {image.mode} image instead of one channel")
        pixels = np.array(image.convert(mode))
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()


def _open(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:  # whose own words name an object in memory
        raise ValueError(f"not a {' or '.join(formats)} file") from None


def load(data: bytes) -> Image.Image:
    """The bytes of a source image -> RGB, upright; transparency is laid on white.

    Raises:
        ValueError, OSError: not an image of a known format, damaged, or of more than 8 or 16 bits.
    """
    file = _open(data, SOURCE_FORMATS)
    file.load()
    image: Image.Image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bit grey; PIL's own conversion would clip it at 255
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def load_labels(data: bytes) -> Image.Image:
    """The bytes of a map of classes -> one channel whose values are the class numbers: a grey
    image's values, or a palette image's indices.

    Raises:
        ValueError, OSError: as `load`; or an image in colour, whose numbers nobody knows.
    """
    file = _open(data, SOURCE_FORMATS)
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
