"""A picture to look at: of each photo the faces found in it, and beside it their crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from ganinv.dataset.faces import Face

PANEL, CAPTION, GAP, COLUMNS = 160, 16, 6, 8  # px, but for the columns
CROPS = 4  # of one photo
LINE, DOT, BAD = (255, 220, 0), (0, 255, 120), (255, 110, 110)


@dataclass(frozen=True)
class Panel:
    """A picture of at most PANEL px, and what is written under it."""

    image: Image.Image
    caption: str
    good: bool = True


def panels_of(
    photo: Image.Image | None, name: str, faces: list[Face], crops: list[Image.Image], fault: str
) -> list[Panel]:
    """A photo with its quads and points drawn in, then its crops; or, without any, why.

    Args:
        photo: None where it could not be read.
        name: of the photo.
        faces: found in it.
        crops: their crops, in the same order.
        fault: empty where all went well.
    """
    if photo is None:
        return [Panel(Image.new("RGB", (PANEL, PANEL), (60, 60, 60)), f"{name}: {fault}", False)]
    scale = PANEL / max(photo.size)
    small = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    picture = photo.resize(small, Image.Resampling.LANCZOS, reducing_gap=2.0)
    draw = ImageDraw.Draw(picture)
    for face in faces:
        corners = [((x + 0.5) * scale, (y + 0.5) * scale) for x, y in face.quad.tolist()]
        draw.line([*corners, corners[0]], fill=LINE, width=2)
        for x, y in face.points.tolist():
            draw.point(((x + 0.5) * scale, (y + 0.5) * scale), fill=DOT)
    first = Panel(picture, f"{name}: {fault}" if fault else name, not fault)
    shown = [
        Panel(part.resize((PANEL, PANEL), Image.Resampling.LANCZOS), f"face {number}")
        for number, part in enumerate(crops[:CROPS])
    ]
    if len(crops) > CROPS:
        shown[-1] = Panel(shown[-1].image, f"and {len(crops) - CROPS} more")
    return [first, *shown]


def strip(panels: list[Panel]) -> Image.Image:
    """Panels side by side."""
    canvas = Image.new("RGB", (len(panels) * (PANEL + GAP) - GAP, PANEL + CAPTION), (24, 24, 24))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for number, panel in enumerate(panels):
        left = number * (PANEL + GAP)
        offset = ((PANEL - panel.image.width) // 2, (PANEL - panel.image.height) // 2)
        canvas.paste(panel.image, (left + offset[0], offset[1]))
        caption = panel.caption.encode("latin-1", "replace").decode("latin-1")
        while draw.textlength(caption, font) > PANEL and len(caption) > 3:
            caption = f"..{caption[3:]}" if panel.good else f"{caption[:-3]}.."
        colour = (220, 220, 220) if panel.good else BAD
        draw.text((left + 2, PANEL + 1), caption, fill=colour, font=font)
    return canvas


def sheet(strips: list[Image.Image]) -> Image.Image:
    """Strips, each as wide as it is, set in lines of COLUMNS panels."""
    width = COLUMNS * (PANEL + GAP) + GAP
    height = PANEL + CAPTION + GAP
    places, x, y = [], GAP, GAP
    for part in strips:
        if x > GAP and x + part.width > width - GAP:
            x, y = GAP, y + height
        places.append((x, y))
        x += part.width + 3 * GAP
    canvas = Image.new("RGB", (width, y + height), (24, 24, 24))
    for part, place in zip(strips, places, strict=True):
        canvas.paste(part, place)
    return canvas
