"""The options that say how faces are found: of `ganinv align`, and of `--align` elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, explain

if TYPE_CHECKING:
    from ganinv.dataset.faces import Detector
    from ganinv.dataset.source import Source

MIN_SCORE, LONGEST = 0.3, 1600  # see DlibDetector
SEARCHING = "min_score", "detect_size"  # options of looking for faces


def add_options(parser: Any) -> None:
    """The options that say how faces are found."""
    parser.add_argument(
        "--landmarks", type=Path, metavar="FILE", help="take the faces' points from FILE, a .json, "
        ".csv or align.json (docs/DATA.md), instead of looking for them",
    )  # fmt: skip
    parser.add_argument(
        "--min-score", type=float, metavar="S",
        help="of a face that is found, default 0.3; lower finds more faces, and more that are none",
    )  # fmt: skip
    parser.add_argument(
        "--detect-size", type=int, metavar="N", help="longer side in px of the "
        "copy in which faces are looked for, default 1600; a face below 80 px there is not seen",
    )  # fmt: skip


def add_align(parser: Any) -> None:
    """`--align`, for the commands that take photos, with the options that go with it."""
    parser.add_argument(
        "--align", action="store_true", help="crop the largest face of each photo as FFHQ's were "
        "(see ganinv align, which also shows what was found)",
    )  # fmt: skip
    add_options(parser)


def detector_of(args: argparse.Namespace) -> Detector:
    """The detector that the options name.

    Raises:
        ConfigError: options without sense, or a detector that is not installed.
        DataError: a file of points that cannot be read.
    """
    from ganinv.dataset.faces import DlibDetector, LandmarksFile

    searching = [name for name in SEARCHING if getattr(args, name) is not None]
    if args.landmarks is not None and searching:
        raise ConfigError(
            explain(f"--landmarks with {_options(searching)}", "faces from a file, or to be found",
                    "leave one of them out")
        )  # fmt: skip
    if args.landmarks is not None:
        return LandmarksFile(args.landmarks)
    longest = LONGEST if args.detect_size is None else args.detect_size
    min_score = MIN_SCORE if args.min_score is None else args.min_score
    if not 64 <= longest <= 8192:
        raise ConfigError(explain(f"--detect-size {longest}", "64 to 8192 px", f"e.g. {LONGEST}"))
    if not -1 <= min_score <= 10:
        raise ConfigError(explain(f"--min-score {min_score}", "-1 to 10", f"e.g. {MIN_SCORE}"))
    return DlibDetector(longest=longest, min_score=min_score)


def detector_with_align(args: argparse.Namespace) -> Detector | None:
    """The detector of a command that has `--align`; None without it.

    Raises:
        ConfigError, DataError: see `detector_of`; or an option of `--align` without it.
    """
    if args.align:
        return detector_of(args)
    alone = [name for name in ("landmarks", *SEARCHING) if getattr(args, name) is not None]
    if alone:
        raise ConfigError(explain(f"{_options(alone)} without --align", "both", "add --align"))
    return None


def align_settings(source: Source) -> dict[str, Any] | None:
    """How a source's faces were found; None of a source that is not aligned."""
    from ganinv.dataset.faces import Aligned

    return source.settings if isinstance(source, Aligned) else None


def _options(names: list[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def aligned(
    source: Source, detector: Detector | None, size: tuple[int, int], reads: str | None = None
) -> Source:
    """The source as it is or, with a detector, its photos' largest faces, cropped.

    Args:
        source: what the command was given.
        detector: of `detector_with_align`.
        size: (H, W) in px that the command wants; the crop is a square of the longer side.
        reads: the task's, see `Task.reads`.

    Raises:
        ConfigError: drawings or maps of classes to be aligned.
        DataError: a file of points that knows none of the photos.
    """
    from ganinv.dataset.faces import Aligned, LandmarksFile

    if detector is None:
        return source
    if reads in ("grey", "labels"):
        raise ConfigError(
            explain(f"--align with a task that reads {reads}", "photos", "leave --align out, and "
                    "give drawings and maps that belong to aligned faces")
        )  # fmt: skip
    if isinstance(detector, LandmarksFile):
        detector.check_names([name for name, _ in source.items()])
    return Aligned(source, detector, max(size))
