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

EXTENSIONS: tuple[Extension, ...] = ("png", "jpg", "webp")
# What source images may be. Formats that PIL hands to other programs are left out on purpose.
SOURCE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")


def encode(image: np.ndarray, extension: Extension, quality: int) -> bytes:
    """uint8 [H,W,3] RGB -> the bytes of an image file.

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


def decode(data: bytes, extension: Extension) -> Tensor:
    """The bytes of an image file of a shard -> uint8 [3,H,W] RGB.

    Raises:
        ValueError, OSError: the bytes are cut short or damaged.
    """
    if extension == "jpg":
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
    else:
        pixels = np.array(_open(data, (extension.upper(),)).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


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


def resize(image: Image.Image, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """One Lanczos resize, antialiased, to uint8 [H,W,3].

    Args:
        image: RGB.
        size: (H, W) in px.
        fit: crop: the largest centred part of the target's aspect; pad: the whole image, centred
            on black.
    """
    height, width = size
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        left = (image.width - scale * width) / 2
        top = (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box))
    scale = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (width, height))
    corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(image.resize(inner, Image.Resampling.LANCZOS), corner)
    return np.asarray(canvas)
