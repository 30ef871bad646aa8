"""Drawn faces whose every attribute is known: the built-in domain.

DiceBear's "lorelei" style (design by Lisa Wischofsky, CC0 1.0), recoloured with continuous skin,
hair and background colours and continuous pose. A face is a function of its seed alone.

    image       uint8 [R,R,3] RGB
    attributes  plain JSON values: colours as RGB in [0,1], pose in degrees and per cent of the
                canvas, parts by variant name, and booleans for what a classifier would be asked
    labels      uint8 [R,R]: the part of the face that covers most of each pixel, by its place in
                `PARTS`
"""

from __future__ import annotations

import colorsys
import io
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import resvg_py
from PIL import Image

from ganinv.core.seed import derive_seed

if TYPE_CHECKING:
    from dicebear import Avatar, Style  # where faces are drawn only: a run finds them drawn

VERSION = 1  # raise it when a seed gives another face
OVERSAMPLING = 3  # rendered this much larger and reduced with a box filter

# Hair as (hue, saturation, value) ranges with the share of heads that have it.
HAIR: dict[str, tuple[float, tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "black": (0.26, (0.02, 0.10), (0.10, 0.45), (0.08, 0.22)),
    "brown": (0.28, (0.04, 0.09), (0.45, 0.75), (0.25, 0.50)),
    "blond": (0.18, (0.10, 0.14), (0.35, 0.70), (0.70, 0.95)),
    "red": (0.11, (0.01, 0.06), (0.65, 0.90), (0.50, 0.80)),
    "grey": (0.07, (0.00, 1.00), (0.00, 0.06), (0.55, 0.90)),
    "dyed": (0.10, (0.45, 0.95), (0.40, 0.75), (0.55, 0.90)),
}

PARTS = [  # what a label says; outlines belong to what they surround
    "background", "skin", "hair", "outline", "eyes", "eyebrows", "nose", "mouth", "freckles",
    "glasses", "beard", "earrings", "hairAccessories",
]  # fmt: skip


@dataclass(frozen=True)
class Move:
    """Where a face is drawn, from where its seed puts it; its background fills the canvas as ever.

    Attributes:
        down, right: per cent of the canvas, after the rotation.
        angle: degrees counter-clockwise, about the canvas's centre.
    """

    down: float = 0.0
    right: float = 0.0
    angle: float = 0.0


STILL = Move()


@cache
def _style() -> Style:
    from dicebear import Style

    text = resources.files("dicebear_styles").joinpath("lorelei.json").read_text()
    return Style(json.loads(text))


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 4)


def _hex(rgb: list[float]) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in rgb)


def _hsv(hue: float, saturation: float, value: float) -> list[float]:
    return [round(c, 4) for c in colorsys.hsv_to_rgb(hue, saturation, value)]


def _colours(rng: np.random.Generator) -> dict[str, Any]:
    names, shares = list(HAIR), np.array([spec[0] for spec in HAIR.values()])
    name = names[rng.choice(len(names), p=shares / shares.sum())]
    _, hue, saturation, value = HAIR[name]
    hair = _hsv(_uniform(rng, *hue), _uniform(rng, *saturation), _uniform(rng, *value))
    tone = _uniform(rng, 0.0, 1.0)  # 0 light ... 1 dark
    skin = _hsv(
        0.062 + _uniform(rng, -0.012, 0.018),
        0.20 + 0.42 * tone + _uniform(rng, -0.04, 0.04),
        0.99 - 0.52 * tone,
    )
    background = _hsv(_uniform(rng, 0.0, 1.0), _uniform(rng, 0.08, 0.55), _uniform(rng, 0.72, 0.98))
    return {
        "hair_name": name,
        "hair_rgb": hair,
        "skin_tone": tone,
        "skin_rgb": skin,
        "background_rgb": background,
    }


def options(seed: int, move: Move = STILL) -> tuple[dict[str, Any], dict[str, Any]]:
    """DiceBear options and our own attributes of the face with this seed, moved."""
    rng = np.random.default_rng(derive_seed("avatars", seed))
    known = _colours(rng)
    known |= {
        "rotate_deg": _uniform(rng, -12.0, 12.0),
        "shift_x_percent": _uniform(rng, -3.0, 3.0),
        "shift_y_percent": _uniform(rng, -3.0, 3.0),
        "scale": _uniform(rng, 1.02, 1.2),
    }
    by = {"rotate_deg": -move.angle, "shift_x_percent": move.right, "shift_y_percent": move.down}
    known |= {name: round(known[name] + change, 4) for name, change in by.items()}
    beard = rng.uniform() < 0.22
    known |= {
        "glasses": bool(rng.uniform() < 0.3),
        "beard": bool(beard),
        "earrings": bool(not beard and rng.uniform() < 0.25),
        "freckles": bool(rng.uniform() < 0.12),
        "flowers": bool(not beard and rng.uniform() < 0.06),
    }
    line = [0.12 * c for c in known["hair_rgb"]]
    given = {
        "seed": str(seed),
        "backgroundColor": [_hex(known["background_rgb"])],
        "hairColor": [_hex(known["hair_rgb"])],
        "skinColor": [_hex(known["skin_rgb"])],
        "eyebrowsColor": [_hex([0.55 * c for c in known["hair_rgb"]])],
        "outlineColor": [_hex(line)],
        "glassesColor": [_hex(_hsv(_uniform(rng, 0, 1), 0.6, _uniform(rng, 0.1, 0.45)))],
        "earringsColor": ["#e0b030"],
        "rotate": known["rotate_deg"],
        "translateX": known["shift_x_percent"],
        "translateY": known["shift_y_percent"],
        "scale": known["scale"],
        "glassesProbability": 100 * known["glasses"],
        "beardProbability": 100 * known["beard"],
        "earringsProbability": 100 * known["earrings"],
        "frecklesProbability": 100 * known["freckles"],
        "hairAccessoriesProbability": 100 * known["flowers"],
    }
    return given, known


def _avatar(given: dict[str, Any]) -> Avatar:
    from dicebear import Avatar

    return Avatar(_style(), given)


def draw(seed: int, resolution: int, move: Move = STILL) -> tuple[np.ndarray, dict[str, Any]]:
    """The face with this seed: uint8 [R,R,3] RGB and its attributes.

    Args:
        seed: any integer; equal seeds give equal faces on every machine.
        resolution: R in px.
        move: from where the seed puts it; its attributes say where it then is.
    """
    given, known = options(seed, move)
    avatar = _avatar(given)
    size = resolution * OVERSAMPLING
    png = resvg_py.svg_to_bytes(
        svg_string=avatar.to_string(), width=size, height=size, skip_system_fonts=True
    )
    image = Image.open(io.BytesIO(bytes(png))).convert("RGB").reduce(OVERSAMPLING)
    chosen = avatar.to_json()["options"]
    parts = {
        part: chosen.get(f"{part}Variant")
        for part in ("head", "hair", "eyes", "eyebrows", "nose", "mouth", "glasses", "beard")
    }
    known |= {f"{part}_variant": name for part, name in parts.items()}
    known["smile"] = str(parts["mouth"]).startswith("happy")
    return np.asarray(image), known


def labels(seed: int, resolution: int, move: Move = STILL) -> np.ndarray:
    """The parts of the face with this seed: uint8 [R,R], numbers of `PARTS`.

    The same drawing with every part in a flat colour of its own and without antialiasing; of the
    pixels that become one, the commonest part counts.

    Args:
        seed: see `draw`.
        resolution: R in px.
        move: see `draw`.
    """
    svg = _avatar(options(seed, move)[0]).to_string()
    svg = svg.replace('shape-rendering="auto"', 'shape-rendering="crispEdges"', 1)
    svg = re.sub(r'<g id="(\w+)-[^"]*">(.*?)</g>(?=<g id=|<clipPath|</defs>)', _flat, svg)
    svg = re.sub(r'(<rect [^>]*fill=")[^"]*(")', rf"\g<1>{_code('background')}\2", svg)
    size = resolution * OVERSAMPLING
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    codes = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    numbers, rest = np.divmod(codes[..., 0], CODE)
    if rest.any() or (codes != codes[..., :1]).any() or numbers.max() >= len(PARTS):
        raise AssertionError(f"the face of seed {seed} has a colour that is no part's")
    cells = numbers.reshape(resolution, OVERSAMPLING, resolution, OVERSAMPLING)
    counts = np.stack([(cells == part).sum((1, 3)) for part in range(len(PARTS))])
    return counts.argmax(0).astype(np.uint8)


CODE = 16  # grey levels between the codes of two parts


def _code(part: str) -> str:
    level = CODE * PARTS.index(part)
    return f"#{level:02x}{level:02x}{level:02x}"


def _flat(match: re.Match[str]) -> str:
    """One part's drawing in its flat colour; a head is skin between outlines."""
    whole, part = match[0], match[1]
    whole = re.sub(r' opacity="[^"]*"', "", whole)
    if part != "head":
        return re.sub(r'fill="[^"]*"', f'fill="{_code(part)}"', whole)
    drawn = iter(["outline", "skin"])  # the silhouette, the skin in it, lines from then on
    return re.sub(r'fill="[^"]*"', lambda _: f'fill="{_code(next(drawn, "outline"))}"', whole)
