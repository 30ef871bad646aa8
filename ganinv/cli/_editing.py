"""What `ganinv fit` and `ganinv edit` share: generators, layers, strengths and codes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, explain
from ganinv.generator.importer.find import find

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.generator.importer.bundle import AnyGenerator

MOST_STRENGTHS = 101
MAX_NPY = 1 << 28  # bytes: 7,000 codes of 18 x 512; latents.pt may be larger
RANGE = re.compile(r"(?P<first>[^:]+?)\.\.(?P<last>[^:]+?)(?::(?P<count>\d+))?")


def open_generator(text: str) -> AnyGenerator:
    """The generator of a file of any kind that `ganinv` opens, or of a shipped name.

    Raises:
        WeightsMissing, WeightsError, ConfigError: as `open_model`, `load_generator`.
    """
    if not Path(text).is_file():
        find(text, None)
    from ganinv.config.check import check_images
    from ganinv.evaluation.open import open_model
    from ganinv.generator.importer.load import load_generator

    if Path(text).is_file():
        generator = open_model(text).generator
    else:
        generator = load_generator(weights=text, resolution=None, kind=None, origin=None)
    check_images(generator)
    return generator


def layers_of(text: str | None, num_ws: int, option: str = "--layers") -> list[int] | None:
    """Layers of a list such as "0-3,7"; None for None, all.

    Raises:
        ConfigError: no such layers.
    """
    if text is None:
        return None
    edges = [part.strip().split("-") for part in text.split(",")]
    if all(len(e) <= 2 and all(n.isdigit() and len(n) < 5 for n in e) for e in edges):
        layers = sorted({n for e in edges for n in range(int(e[0]), int(e[-1]) + 1)})
        if layers and layers[-1] < num_ws:
            return layers
    raise ConfigError(
        explain(f"{option} {text}", f"layers from 0 to {num_ws - 1}", f"e.g. {option} 0-3")
    )


def strengths_of(text: str) -> list[float]:
    """Strengths of a list, "-2,0,2", or of a range, "-3..3" in steps of 1, "-3..3:13" in 13.

    Raises:
        ConfigError: a strength that is no number, or too many.
    """
    found = RANGE.fullmatch(text.strip())
    if found is None:
        strengths = [_number(text, word) for word in text.split(",")]
    else:
        first, last = _number(text, found["first"]), _number(text, found["last"])
        count = int(found["count"]) if found["count"] else int(abs(last - first)) + 1
        if not 2 <= count <= MOST_STRENGTHS:
            raise _refused(text, f"{count} strengths", f"2 to {MOST_STRENGTHS} of them")
        strengths = [first + (last - first) * i / (count - 1) for i in range(count)]
    if len(strengths) > MOST_STRENGTHS:
        raise _refused(text, f"{len(strengths)} strengths", f"at most {MOST_STRENGTHS}")
    return strengths


def check_pictures(count: int | None) -> None:
    """Refuse a number of pictures that makes no strip; None: none are asked for.

    Raises:
        ConfigError: too few or too many.
    """
    if count is not None and not 2 <= count <= MOST_STRENGTHS:
        raise ConfigError(
            explain(f"--interpolate {count}", f"2 to {MOST_STRENGTHS} pictures",
                    "e.g. --interpolate 7")
        )  # fmt: skip


def _number(text: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _refused(text, f"{word.strip() or 'nothing'}, which is no number", "numbers")
    return value


def _refused(text: str, given: str, expected: str) -> ConfigError:
    return ConfigError(
        explain(f"--strengths {text}: {given}", expected, "e.g. --strengths=-3..3, or -2,0,2")
    )


def check_new(path: Path, option: str = "--out") -> None:
    """Refuse to write over a file, before minutes are spent.

    Raises:
        ConfigError: it exists, or nothing can be written there.
    """
    from ganinv.run.disk import check_writable

    if path.suffix != ".safetensors":
        raise ConfigError(
            explain(f"{option} {path}", "the name of a .safetensors file", "end it so")
        )
    if path.exists():
        raise ConfigError(
            explain(f"{option} {path}, which exists", "a name that is free",
                    "choose another; nothing was overwritten")
        )  # fmt: skip
    check_writable(path.parent, option, f"choose another {option}")


def read_codes(path: Path) -> Tensor:
    """Codes of a file, float32 [N,D] or [N,L,D]: latents.pt, latents.npy.

    Raises:
        WeightsMissing, WeightsError: no such file, or no codes.
    """
    import torch

    from ganinv.core.errors import WeightsError, shown
    from ganinv.core.safe.io import load_tensors, read_bytes
    from ganinv.core.safe.npy import array_of
    from ganinv.core.safe.unpickle import Unreadable

    codes: Any = None
    if path.suffix == ".npy":
        try:
            codes = array_of(read_bytes(path, MAX_NPY))
        except Unreadable as error:
            raise WeightsError(
                explain(f"{path} was refused: {error}", "codes, numbers of shape [N,L,D]",
                        "save them with numpy.save as float32")
            ) from None  # fmt: skip
    else:
        codes = load_tensors(path)
    if (
        not isinstance(codes, torch.Tensor) or codes.ndim not in (2, 3) or not codes.numel()
        or not codes.is_floating_point() or not bool(torch.isfinite(codes).all())
    ):  # fmt: skip
        given = list(codes.shape) if isinstance(codes, torch.Tensor) else shown(codes)
        raise WeightsError(
            explain(f"{path} with {given}", "finite codes of shape [N,L,D] (or [N,D])",
                    "pass latents.pt or latents.npy of `ganinv invert`")
        )  # fmt: skip
    return codes.float()
