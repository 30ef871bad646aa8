"""Pictures of edits: a row for each image, a column for each strength, labelled; and animations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from ganinv.core.errors import ConfigError, explain

SIDE = 256  # px, larger panels are averaged down
FEW = 96  # px, up to which panels are drawn twice as large, pixels as squares
LABEL, GAP, CAPTION = 18, 2, 12  # px: of the line of strengths, between panels, of the letters
INK, PAPER, MARK = (40, 40, 40), (255, 255, 255), (42, 111, 219)
UNEDITED = ("0", "x1")
FRAMES, FPS = 24, 20  # from one end to the other; as many back
VIDEOS = ("webp", "mp4", "none")


def panel(image: Tensor) -> Tensor:
    """uint8 [3,h,w] -> uint8 as it is drawn: large ones averaged down, small ones doubled."""
    side = max(image.shape[-2:])
    if side > SIDE:
        height, width = (max(1, round(n * SIDE / side)) for n in image.shape[-2:])
        small = F.adaptive_avg_pool2d(image.float(), (height, width))
        return small.round().to(torch.uint8)
    if side <= FEW:
        return image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return image


def strip(rows: Sequence[Tensor], labels: Sequence[str]) -> Image.Image:
    """Labelled strips, one under the other; where nothing is edited, the label is marked.

    Args:
        rows: of each image uint8 [S,3,h,w].
        labels: of the S strengths.
    """
    parts = [[panel(image) for image in row] for row in rows]
    height, width = parts[0][0].shape[-2:]
    across, down = len(labels) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP
    canvas = Image.new("RGB", (across, LABEL + down), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(CAPTION)
    for column, text in enumerate(labels):
        left = column * (width + GAP)
        start = left + (width - draw.textlength(text, font)) / 2
        draw.text((start, 1), text, fill=MARK if text in UNEDITED else INK, font=font)
        for line, row in enumerate(parts):
            pixels = row[column].permute(1, 2, 0).contiguous().numpy()
            canvas.paste(Image.fromarray(pixels), (left, LABEL + line * (height + GAP)))
    return canvas


def video_strengths(strengths: Sequence[float]) -> list[float]:
    """Those of an animation's frames: there and back between the least and the greatest."""
    low, high = min(strengths), max(strengths)
    there = [low + (high - low) * i / (FRAMES - 1) for i in range(FRAMES)]
    return [*there, *there[-2:0:-1]]


def frame(images: Tensor, columns: int = 4) -> Image.Image:
    """uint8 [N,3,h,w] -> one frame."""
    shown = torch.stack([panel(image) for image in images])
    pixels = make_grid(shown, nrow=min(columns, len(shown)), padding=GAP, pad_value=255)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def check_video(kind: str) -> None:
    """Refuse an animation that cannot be written here.

    Raises:
        ConfigError: an unknown kind, or mp4 without imageio-ffmpeg.
    """
    if kind not in VIDEOS:
        raise ConfigError(explain(f"--video {kind}", f"one of {', '.join(VIDEOS)}", "set it"))
    if kind == "mp4":
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError) as error:
            raise ConfigError(
                explain("--video mp4 without ffmpeg", "the package imageio-ffmpeg, which has it",
                        'install it, pip install "ganinv[video]", or take --video webp')
            ) from error  # fmt: skip


def animation(frames: Sequence[Image.Image]) -> bytes:
    """The bytes of an animated WebP that begins anew at its end."""
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], loop=0,
                   duration=1000 // FPS, quality=85, method=4)  # fmt: skip
    return buffer.getvalue()


def write_mp4(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write H.264, which wants even sides: a white line is added to odd ones."""
    import imageio_ffmpeg

    width, height = (n + n % 2 for n in frames[0].size)
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=FPS, quality=7, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    for picture in frames:
        canvas = Image.new("RGB", (width, height), PAPER)
        canvas.paste(picture)
        writer.send(np.ascontiguousarray(canvas))
    writer.close()
