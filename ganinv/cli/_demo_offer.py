"""What `ganinv demo` offers: per-image methods that work on its model, sliders, first photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from ganinv.cli._demo_work import MOST_PHOTOS, Control
from ganinv.cli._inputs import compared, task_of
from ganinv.cli._methods import ENCODE, check_methods, config_of
from ganinv.config.inversions import build_inversions
from ganinv.core.command import printable
from ganinv.core.errors import USER_ERRORS, ConfigError, explain
from ganinv.core.safe.io import write_atomic
from ganinv.dataset.codec import encode
from ganinv.dataset.source import open_source
from ganinv.editing.direction import SUFFIXES, check_generator, read_directions
from ganinv.editing.sefa import sefa
from ganinv.evaluation.open import Opened
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.inversion.optimise import check_targets

MOST_CONTROLS = 60
DRAWN, FIRST_SEED = 4, 20_000_000  # faces of the test split


def offered(
    names: Iterable[str], settings: list[str], opened: Opened, size: int | None
) -> tuple[dict[str, DictConfig | None], dict[str, str]]:
    """Methods that work on this model, by name, and why the others do not.

    Args:
        names: of conf/inversion.
        settings: KEY=VALUE in full, as on evaluate.py's command line.
        opened: the model.
        size: px a side at which images are compared.
    """
    model, task = opened.model, task_of(opened.model, None)
    known: dict[str, DictConfig | None] = {ENCODE: None}
    refused: dict[str, str] = {}
    for name in sorted(set(names) - {ENCODE}):
        own = [word for word in settings if word.split(".")[:2] == ["inversion", name]]
        own += [word for word in settings if not word.startswith("inversion.")]
        try:
            cfg = config_of(name, None, own)
            check_methods(name, model, task, size)
            check_targets(build_inversions(cfg.inversion, model), model, compared(model, size))
        except USER_ERRORS as error:
            refused[name] = str(error)
        else:
            known[name] = cfg
    return known, refused


def find_controls(
    places: Sequence[Path], G: AnyGenerator, components: int
) -> tuple[list[Control], dict[str, str]]:
    """A slider for every direction: SeFa's first ones, then those of files, of which folders are
    searched; and why the others have none.

    Args:
        places: files and folders.
        G: the generator.
        components: of SeFa.

    Raises:
        ConfigError: nothing at a place; more directions than a page holds.
        WeightsError: a file that was named itself does not fit.
    """
    found: list[Control] = []
    if components:
        fitted = sefa(G, layers=None, count=components, normalise=False)
        found += [Control(f"SeFa {direction.name}", direction) for direction in fitted]
    refused: dict[str, str] = {}
    for path, asked in _files_of(places):
        try:
            known = read_directions(path)
            for direction in known.values():
                check_generator(direction, G)
        except USER_ERRORS as error:
            if asked:
                raise
            refused[str(path)] = str(error)
            continue
        several = len(known) > 1
        found += [
            Control(f"{path.stem} {d.name}" if several else d.name, d) for d in known.values()
        ]
    if len(found) > MOST_CONTROLS:
        raise ConfigError(
            explain(f"{len(found)} directions", f"at most {MOST_CONTROLS} sliders on a page",
                    "name fewer files by --directions, or take fewer --components")
        )  # fmt: skip
    return _named_apart(found), refused


def _files_of(places: Sequence[Path]) -> Iterable[tuple[Path, bool]]:
    """(file, whether it was named itself)."""
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES)
            yield from ((path, False) for path in inside)
        elif place.is_file():
            yield place, True
        else:
            raise ConfigError(
                explain(f"--directions {place}, which is not there", "a file of directions, or a "
                        "folder of such files", "check the path")
            )  # fmt: skip


def _named_apart(controls: list[Control]) -> list[Control]:
    """With a number behind labels that are there already."""
    taken: dict[str, int] = {}
    named = []
    for control in controls:
        label = printable(control.label, 60)
        taken[label] = taken.get(label, 0) + 1
        number = f" ({taken[label]})" if taken[label] > 1 else ""
        named.append(Control(label + number, control.direction))
    return named


def first_photos(opened: Opened, folder: Path, given: Path | None) -> list[Path]:
    """Photos to begin with: of a folder, or faces of the built-in domain for a model that was
    trained on it; none for others.

    Args:
        opened: the model.
        folder: where faces are drawn.
        given: a folder, zip or LMDB of photos.

    Raises:
        DataError: nothing there.
    """
    if given is not None:
        source = open_source(given)
        names = [name for name, _ in source.items()][:MOST_PHOTOS]
        return [_written(folder / Path(name).name, source.read(name)) for name in names]
    dataset = opened.config.get("dataset")
    trained_on = str(dataset.get("_target_", "")) if isinstance(dataset, dict) else ""
    if trained_on.rpartition(".")[2] != "AvatarData":
        return []
    pictures = [_drawn(FIRST_SEED + number, opened) for number in range(DRAWN)]
    return [
        _written(folder / f"drawn-{number}.png", encode(picture, "png", 100))
        for number, picture in enumerate(pictures, 1)
    ]


def _drawn(seed: int, opened: Opened) -> np.ndarray:
    """A drawn face, or its parts where E reads those; uint8 [R,R,3] or [R,R]."""
    from ganinv.dataset.avatars import draw, labels

    side, task = opened.model.G.resolution, task_of(opened.model, None)
    return labels(seed, side) if task.reads == "labels" else draw(seed, side)[0]


def _written(path: Path, data: bytes) -> Path:
    write_atomic(path, data)
    return path
