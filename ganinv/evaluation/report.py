"""The page of an evaluation: one HTML file that needs nothing else, and the grid as PNG.

The error of a pixel is the mean over channels of |x_hat - x| on [0,1], from black (0) over red and
yellow to white (`FULL` and above).
"""

from __future__ import annotations

import base64
import io
import math
from html import escape

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from ganinv.evaluation.curve import svg
from ganinv.evaluation.edits import Strip
from ganinv.evaluation.result import Picture, Result, Row
from ganinv.evaluation.strip import strip
from ganinv.evaluation.table import cells, details, failures, headings, number, protocols

FULL = 0.5  # error that is drawn white
FEW = 96  # px a side, up to which pixels are shown as squares
LISTED = 100  # unreadable images on the page
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;
 color:#1a1a1a;background:#fff}
h1{font-size:1.5rem} h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse} th,td{padding:.3rem .9rem;border-bottom:1px solid #ddd;
 text-align:right;font-variant-numeric:tabular-nums} th:first-child,td:first-child{text-align:left}
.facts td{text-align:left;color:#444;word-break:break-all} .facts td:first-child{color:#888}
.set{display:grid;grid-template-columns:repeat(auto-fill,minmax(18rem,1fr));gap:1rem}
figure{margin:0} figure img{display:block;width:100%} figure img.strip{width:auto;max-width:100%}
 .few-px{image-rendering:pixelated}
figcaption{font-size:.8rem;color:#666}
.scale{display:inline-block;width:8rem;height:.7rem;border:1px solid #999;
 background:linear-gradient(90deg,#000,#f00 33%,#ff0 67%,#fff)}
 .curve{max-width:40rem;font-size:11px;fill:currentColor} .curve .line{fill:none;stroke:#2a6fdb;
 stroke-width:2} .curve .band{fill:#2a6fdb;opacity:.2} .curve .grid{stroke:#8884}
 .curve .axis{stroke:#888}
@media(prefers-color-scheme:dark){body{background:#161616;color:#e8e8e8}
 .facts td{color:#bbb} th,td{border-color:#333} figcaption{color:#999}}
"""


def error_map(image: Tensor, reconstruction: Tensor) -> Tensor:
    """uint8 [3,H,W] each -> uint8 [3,H,W], black for no error, white for `FULL` and more."""
    error = (image.float() - reconstruction.float()).abs().mean(0) / 255 / FULL  # [H,W]
    heat = torch.stack([error * 3, error * 3 - 1, error * 3 - 2])
    return heat.clamp(0, 1).mul(255).round().to(torch.uint8)


def parts_of(picture: Picture) -> list[Tensor]:
    """Input (where it is another image), image, reconstruction and error: uint8 [3,H,W] each."""
    source = [] if picture.source is None else [picture.source]
    pair = picture.image, picture.reconstruction
    return [*source, *pair, error_map(*pair)]


def grid(pictures: list[Picture], columns: int = 8) -> Image.Image:
    """Rows of inputs (of a task), of images, of reconstructions and of errors."""
    rows: list[Tensor] = []
    for start in range(0, len(pictures), columns):
        part = pictures[start : start + columns]
        blank = [torch.full_like(part[0].image, 255)] * (columns - len(part))
        blank = blank if len(pictures) > columns else []
        for row in zip(*(parts_of(p) for p in part), strict=True):
            rows += [*row, *blank]
    columns = min(columns, len(pictures))
    return to_image(make_grid(torch.stack(rows), nrow=columns, pad_value=255))


def to_image(pixels: Tensor) -> Image.Image:
    """uint8 [3,H,W] -> picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def page(result: Result, title: str) -> str:
    """The whole HTML page."""
    facts = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in {**result.facts, "images": result.images}.items()
    )
    curves = "".join(_curve(row) for row in result.rows)
    sections = [
        f"<h2>{escape(row.inversion)}: {label}</h2><div class='set'>"
        + "".join(_figure(picture) for picture in pictures)
        + "</div>"
        for row in result.rows
        for label, pictures in (
            (f"the first {len(row.first)} images", row.first),
            (f"the {len(row.worst)} worst by {result.judge or 'nothing'}", row.worst),
        )
    ]
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>{_table(result)}{curves}"
        f"<p>Each figure: {_words(result)}image, reconstruction, error "
        f"<span class='scale'></span> 0 to {FULL:g} (mean over channels, images in [0,1]).</p>"
        + "".join(_edits(row) for row in result.rows)
        + "".join(sections)
        + _unreadable(result)
        + f"<h2>What was evaluated</h2><table class='facts'>{facts}</table></html>\n"
    )


def _unreadable(result: Result) -> str:
    if not result.unreadable:
        return ""
    lines = "".join(f"<li>{escape(reason)}</li>" for reason in result.unreadable[:LISTED])
    return f"<h2>Left out: {len(result.unreadable)} that cannot be read</h2><ul>{lines}</ul>"


def _words(result: Result) -> str:
    pictures = [picture for row in result.rows for picture in row.first]
    return "input, " if any(p.source is not None for p in pictures) else ""


def _table(result: Result) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in ["inversion", *headings(result)])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in cells(result)
    )
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in failures(result))
    how = "; ".join(protocols(result))
    how = f"<p>Measured on images as saved, of 8 bits: {escape(how)}.</p>" if how else ""
    how += "".join(f"<p>{escape(note)}.</p>" for note in [*details(result), *result.notes])
    return f"<table><tr>{head}</tr>{body}</table>{told}{how}"


def _curve(row: Row) -> str:
    if row.curve is None:
        return ""
    title = f"{row.inversion}: the loss that is descended, over steps"
    return (
        f"<h2>{escape(title)}</h2>{svg(row.curve, title)}"
        "<p>The median over the images, and the band in which four of five lie; an image that has "
        "stopped counts with what it had then.</p>"
    )


def _edits(row: Row) -> str:
    """A strip an edit: a line for each image, a column for each strength."""
    return "".join(
        f"<h2>{escape(row.inversion)}: {escape(found.edit)}</h2>{_strip(found)}"
        for found in row.strips
    )


def _strip(found: Strip) -> str:
    data = base64.b64encode(png(strip(found.images, found.labels))).decode()
    names = ", ".join(found.keys)
    return (
        f"<figure><img class='strip' alt='{escape(found.edit, quote=True)}' "
        f"src='data:image/png;base64,{data}'><figcaption>each line an image ({escape(names)}), "
        "each column a strength</figcaption></figure>"
    )


def _figure(picture: Picture) -> str:
    strip = to_image(torch.cat(parts_of(picture), dim=2))
    small = " class='few-px'" if picture.image.shape[1] <= FEW else ""  # enlarged as they are
    data = base64.b64encode(png(strip)).decode()
    finite = {name: value for name, value in picture.values.items() if math.isfinite(value)}
    text = "  ".join(f"{name} {number(value)}" for name, value in finite.items())
    return (
        f"<figure><img{small} alt='{escape(picture.key, quote=True)}' "
        f"src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(picture.key)}<br>{escape(text)}</figcaption></figure>"
    )
