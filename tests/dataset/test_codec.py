"""Strict decoding, and what a resize keeps."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ganinv.dataset.codec import EXTENSIONS, Extension, _check_size, decode, encode, load, resize
from ganinv.dataset.stream import stacked

ROW, COLUMN = np.mgrid[:30, :40]
PIXELS = np.stack([6 * COLUMN, 8 * ROW, 0 * ROW + 9], 2).astype(np.uint8)  # [30,40,3]


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_pixels_survive(extension: Extension) -> None:
    image = decode(encode(PIXELS, extension, 95), extension)
    assert image.dtype == torch.uint8 and image.shape == (3, 30, 40)
    error = np.abs(image.permute(1, 2, 0).numpy().astype(int) - PIXELS)
    assert error.max() == 0 if extension == "png" else error.mean() < 4


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_damage_is_an_error_never_grey(extension: Extension) -> None:
    data = encode(PIXELS, extension, 95)
    for bad in (data[: len(data) // 2], data[:-40], b"", b"\x01" * 300):
        with pytest.raises((ValueError, OSError)):
            decode(bad, extension)


def test_a_wrong_png_checksum_is_an_error_not_a_crash() -> None:
    data = bytearray(encode(PIXELS, "png", 0))
    data[len(data) // 2] ^= 255
    with pytest.raises((ValueError, OSError)):
        decode(bytes(data), "png")


def test_sources_become_upright_rgb() -> None:
    grey16 = Image.fromarray(np.full((4, 4), 257 * 200, dtype=np.uint16))
    assert np.asarray(load(saved(grey16)))[0, 0].tolist() == [200, 200, 200]
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(load(saved(clear)))[0, 0].tolist() == [255, 255, 255]
    turned = Image.Exif()
    turned[0x0112] = 6
    assert load(saved(Image.fromarray(PIXELS), "JPEG", exif=turned)).size == (30, 40)
    assert load(saved(Image.new("L", (5, 4), 7))).mode == "RGB"
    with pytest.raises(ValueError, match="not a PNG or JPEG"):
        load(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def test_crop_takes_the_centre_and_pad_keeps_all() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, :10], wide[:, 20:] = 255, 255  # white, black, white
    image = Image.fromarray(wide)
    assert resize(image, (10, 10), "crop").max() < 40
    padded = resize(image, (30, 30), "pad")
    assert padded.shape == (30, 30, 3)
    assert padded[:10].max() == 0 and padded[20:].max() == 0 and padded[15, 2].min() == 255
    assert resize(image, (6, 18), "crop").shape == (6, 18, 3)


def test_reduction_is_antialiased() -> None:
    """A one-pixel checkerboard becomes flat grey; picking pixels would keep black and white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    image = Image.fromarray(np.repeat(board[..., None], 3, 2).astype(np.uint8))
    small = resize(image, (16, 16), "crop")
    assert abs(small.astype(int) - 127).max() < 12


def test_pixels_stay_as_they_were_decoded() -> None:
    """A batch of images is channels_last without a pass over their bytes."""
    images = [
        decode(encode(np.full((6, 8, 3), grey, np.uint8), "png", 90), "png") for grey in (3, 200)
    ]
    batch = stacked(images)
    assert batch.shape == (2, 3, 6, 8) and batch[1].unique().tolist() == [200]
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert images[0].flip(-1).stride() == images[0].stride()


@pytest.mark.parametrize("scans", [1, 3, 1001])
def test_the_scans_of_a_jpeg_are_counted(scans: int) -> None:
    data = encode(np.zeros((8, 8, 3), np.uint8), "jpg", 90)
    at = data.index(b"\xff\xda")
    data = data[:at] + b"\xff\xda" * (scans - 1) + data[at:]
    if scans <= 1000:
        _check_size(data, (8, 8), None)
        return
    with pytest.raises(ValueError, match="a JPEG of 1001 scans; save it again as a baseline"):
        _check_size(data, (8, 8), None)
