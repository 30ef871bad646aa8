"""What a process of `ganinv align` does: a batch of photos to crops, and what happened to each."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import DataError, explain

if TYPE_CHECKING:
    from PIL.Image import Image

    from ganinv.dataset.faces import Detector, Face

BATCH = 8  # photos
SHOWN = 60  # photos of the contact sheet


class One:
    """A source of one image file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def items(self) -> list[tuple[str, str]]:
        """Its name and size."""
        return [(self.path.name, str(self.path.stat().st_size))]

    def read(self, name: str) -> bytes:
        """Its bytes."""
        from ganinv.dataset.source import Folder

        return Folder(self.path.parent).read(name)


@dataclass(frozen=True)
class Job:
    """All that a process needs to know; it travels."""

    source: Any
    detector: Detector
    out: Path
    names: list[str]
    size: int
    largest: bool

    @property
    def parts(self) -> Path:
        """Folder of the finished batches."""
        return self.out / ".parts"

    def part(self, number: int) -> Path:
        """The file of a finished batch."""
        return self.parts / f"{number:08d}.json"

    def strip(self, index: int) -> Path:
        """The file of a photo's strip of the contact sheet."""
        return self.parts / f"{index:08d}.png"

    def batch(self, number: int) -> list[str]:
        """The photos of a batch."""
        return self.names[number * BATCH : (number + 1) * BATCH]

    @property
    def batches(self) -> int:
        """Batches in all, the last one as large as what is left."""
        return -(-len(self.names) // BATCH)

    @cached_property
    def targets(self) -> dict[str, str]:
        """Photo -> the file of its only face, within OUT/images."""
        from ganinv.cli._inputs import targets

        return targets(self.names)

    @cached_property
    def numbered(self) -> dict[str, str]:
        """Photo -> what the names of its faces begin with, if there are several; a number and .png
        follow, and the result is no other photo's."""
        stems = {name: target.removesuffix(".png") for name, target in self.targets.items()}
        taken = {re.sub(r"\d+$", "", stem) for stem in stems.values() if stem[-1:].isdigit()}
        found = {}
        for name in self.names:
            prefix = f"{stems[name]}-"
            while prefix in taken:
                prefix += "-"
            taken.add(prefix)
            found[name] = prefix
        return found

    @cached_property
    def shown(self) -> set[int]:
        """The photos of the contact sheet: all, or SHOWN of them evenly."""
        count = min(SHOWN, len(self.names))
        return {i * len(self.names) // count for i in range(count)}


def align_batch(job: Job, number: int) -> int:
    """Align a batch: its crops and strips, then its part; returns its number of photos."""
    from ganinv.core.safe.io import write_atomic

    names = job.batch(number)
    records = [_align(job, number * BATCH + place, name) for place, name in enumerate(names)]
    write_atomic(job.part(number), json.dumps(records).encode())
    return len(names)


def _align(job: Job, index: int, name: str) -> dict[str, Any]:
    """The record of one photo, after its crops are written."""
    from ganinv.dataset.align import crop
    from ganinv.dataset.faces import NO_FACE, faces_of, open_photo

    photo: Image | None = None
    faces: list[Face] = []
    crops: list[Image] = []
    reason, found = "", 0
    try:
        photo = open_photo(job.source.read(name))
        faces = faces_of(photo, name, job.detector)
        found, faces = len(faces), faces[: 1 if job.largest else None]
        crops = [crop(photo, face.quad, job.size) for face in faces]
        reason = "" if faces else NO_FACE
    except MemoryError as error:
        raise too_little_memory() from error
    except Exception as error:  # a broken image ends in any of a dozen kinds; none stops us
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        faces, crops = [], []
    files = _write(job, name, crops)
    if index in job.shown:
        _write_strip(job, index, photo, faces, crops, reason)
    happened = "aligned" if faces else "unreadable" if photo is None else "no face"
    record: dict[str, Any] = {"source": name, "happened": happened}
    if reason:
        record["reason"] = reason
    if photo is not None:
        record["size"] = [photo.height, photo.width]
    if found > len(faces) > 0:
        record["not_taken"] = found - len(faces)
    return record | {"faces": [_face(*pair) for pair in zip(faces, files, strict=True)]}


def _face(face: Face, file: str) -> dict[str, Any]:
    """What align.json says of a face; its landmarks are as they were found, to the bit."""
    points = [[int(v) if v == int(v) else v for v in point] for point in face.points.tolist()]
    return {
        "file": file,
        "score": face.score,
        "side": round(face.side, 2),
        "quad": face.quad.round(3).tolist(),
        "landmarks": points,
    }


def _write(job: Job, name: str, crops: list[Image]) -> list[str]:
    """Write a photo's crops; returns their paths within OUT."""
    import numpy as np

    from ganinv.core.safe.io import write_atomic
    from ganinv.dataset.codec import encode

    several = [f"{job.numbered[name]}{number}.png" for number in range(len(crops))]
    files = [f"images/{file}" for file in (several if len(crops) > 1 else [job.targets[name]])]
    for file, picture in zip(files, crops, strict=False):
        write_atomic(job.out / file, encode(np.asarray(picture), "png", 100))
    return files[: len(crops)]


def _write_strip(
    job: Job, index: int, photo: Image | None, faces: list[Face], crops: list[Image], reason: str
) -> None:
    import numpy as np

    from ganinv.cli._contact_sheet import panels_of, strip
    from ganinv.core.safe.io import write_atomic
    from ganinv.dataset.codec import encode

    picture = strip(panels_of(photo, job.names[index], faces, crops, reason))
    write_atomic(job.strip(index), encode(np.asarray(picture), "png", 100))


def too_little_memory() -> DataError:
    """What is said when a process was killed or could not have what it asked for."""
    return DataError(
        explain(
            "a process ended for want of memory, it seems",
            "about 2 GB for each process with photos of 80 megapixels, far less with others",
            "run the same command again with fewer --processes; it goes on",
        )
    )
