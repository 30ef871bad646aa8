"""The work of `ganinv demo`, without its page: photos to inversions, sliders to images and files.

A `Session` is what one visitor has inverted. It lies on the CPU; the model is used by one request
at a time, which the page sees to.
"""

from __future__ import annotations

import io
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL.Image import fromarray
from torch import Tensor

from ganinv.cli._inputs import compared, read, task_of
from ganinv.config.inversions import build_inversions
from ganinv.core.command import printable
from ganinv.core.direction import Direction
from ganinv.core.errors import ConfigError, DataError, explain
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Inversion, Target
from ganinv.core.safe.io import write_atomic
from ganinv.core.seed import derive_seed
from ganinv.dataset.faces import Aligned, Detector
from ganinv.editing.direction import move, signed
from ganinv.evaluation import strip
from ganinv.evaluation.open import Opened
from ganinv.evaluation.report import png
from ganinv.inversion.encode import Encode
from ganinv.inversion.file import write_inversion
from ganinv.inversion.model import joined, render
from ganinv.inversion.pace import heard
from ganinv.task.image import Image

MOST_PHOTOS = 8  # of one inversion
MOST_BYTES = 20 << 20  # of a photo's file
MOST_STEPS = 5000  # the longest of conf/inversion
STRIP = 7  # images of a strip
Tell = Callable[[float, str], None]  # share that is done, and words


@dataclass(frozen=True)
class Control:
    """A slider: a direction and what it is called."""

    label: str
    direction: Direction


@dataclass
class Session:
    """What a visitor has inverted."""

    names: list[str]
    photos: list[np.ndarray]  # uint8 [H,W,3], as they were read
    found: list[Inversion]  # of one image each, on the CPU
    images: list[np.ndarray]  # uint8 [R,R,3], what they give
    said: str  # what became of the photos
    files: tempfile.TemporaryDirectory = field(  # to be downloaded; they go with the session
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="ganinv-demo-")
    )


class Photos:
    """Files that a browser has sent, as a source of images."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = {f"{place} {path.name}": path for place, path in enumerate(paths)}

    def items(self) -> list[tuple[str, str]]:
        """(name, bytes) of each."""
        return [(name, str(path.stat().st_size)) for name, path in self.paths.items()]

    def left_out(self) -> list[str]:
        """None: what is no image is told when it is read."""
        return []

    def read(self, name: str) -> bytes:
        """The bytes of one.

        Raises:
            ValueError: a file that is larger than a photo may be.
        """
        path = self.paths[name]
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValueError(f"{size / 2**20:.0f} MiB; at most {MOST_BYTES >> 20} MiB")
        return path.read_bytes()


class Studio:
    """A model, its methods and its directions.

    Args:
        opened: the model's file; the model is moved to the device.
        device: where it works.
        methods: name -> config of `config_of`; None of the encoder alone.
        controls: directions of its generator.
        detector: finds the faces that are to be aligned; None: there is none.
        size: px a side at which methods compare images; None: what the encoder reads.
        strength: at which sliders end.
    """

    def __init__(
        self,
        opened: Opened,
        *,
        device: torch.device,
        methods: dict[str, DictConfig | None],
        controls: list[Control],
        detector: Detector | None,
        size: int | None,
        strength: float,
    ) -> None:
        self.opened, self.model = opened, opened.model.to(device)
        self.device, self.methods, self.controls = device, methods, controls
        self.detector, self.strength = detector, strength
        self.task = task_of(self.model, None)
        self.size = compared(self.model, size)

    @property
    def resolution(self) -> int:
        """R, px."""
        return self.model.G.resolution

    @property
    def inverts(self) -> bool:
        """Whether E reads the image that it is to reproduce."""
        return isinstance(self.task, Image)

    def steps_of(self, method: str) -> int | None:
        """How many steps a method takes by its yaml; None of one that does not count any."""
        cfg = self.methods[method]
        return None if cfg is None else cfg.inversion[method].get("steps")

    # ------------------------------------------------------------------ photos -> inversions

    def invert(
        self, paths: Sequence[Path], *, method: str, steps: int | None, align: bool, tell: Tell
    ) -> Session:
        """Invert photos, one after the other; those that cannot be read are told.

        Args:
            paths: of their files.
            method: one of `methods`.
            steps: instead of the yaml's.
            align: whether the largest face of each is cropped as FFHQ's were.
            tell: is told how far it is.

        Raises:
            ConfigError: too many photos or steps, a method that is not offered, no detector.
            DataError: no photo could be read.
        """
        invert = self._method(method, steps)
        source = self._source(paths, align)
        session, failed = Session([], [], [], [], ""), []
        began, keys = time.monotonic(), [name for name, _ in source.items()]
        for place, key in enumerate(keys):
            name = key.partition(" ")[2]
            try:
                data = source.read(key)
                pixels = [read(data, self.task, size, "crop") for size in self._sizes]
            except Exception as error:  # a broken image ends in any of a dozen kinds
                failed.append(f"{printable(name, 60)}: {_reason(error)}")
                continue

            def inner(
                what: str, done: int, steps: int, place: int = place, name: str = name
            ) -> None:
                share = (place + done / steps) / len(keys)
                tell(share, f"{printable(name, 60)}: {what}, step {done} of {steps}")

            tell(place / len(keys), printable(name, 60))
            target = self._target(key, pixels)
            with heard(inner):
                found = invert(target)
            session.names.append(name)
            session.photos.append(_rgb(to_uint8(self._photo(target)).cpu()))
            session.found.append(joined([found], torch.device("cpu")))
            session.images.append(self.picture(found))
        if not session.names:
            raise DataError(
                explain(f"no photo could be inverted ({'; '.join(failed)})",
                        "png, jpg, webp, bmp, tiff or ppm files", "choose others")
            )  # fmt: skip
        session.said = _told(session, method, time.monotonic() - began, failed)
        return session

    def _method(self, name: str, steps: int | None) -> Callable[[Target], Inversion]:
        """A method, built anew."""
        if name not in self.methods:
            raise ConfigError(
                explain(f"the method {name}", f"one of {', '.join(self.methods)}", "choose one")
            )
        cfg = self.methods[name]
        if cfg is None:
            return Encode(model=self.model)
        nodes = cfg.inversion.copy()
        if steps is not None and "steps" in nodes[name]:
            if not 1 <= steps <= MOST_STEPS:
                raise ConfigError(
                    explain(f"{steps} steps", f"1 to {MOST_STEPS}", "set another number")
                )
            nodes[name].steps = int(steps)
        found: Callable[[Target], Inversion] = build_inversions(nodes, self.model)[name]
        return found

    def _source(self, paths: Sequence[Path], align: bool) -> Photos | Aligned:
        if not 1 <= len(paths) <= MOST_PHOTOS:
            given = f"{len(paths)} photos" if paths else "no photo"
            raise ConfigError(
                explain(given, f"1 to {MOST_PHOTOS} at a time",
                        "take some out" if paths else "drop one, or choose a drawn face")
            )  # fmt: skip
        photos = Photos(paths)
        if not align:
            return photos
        if self.detector is None:
            raise ConfigError(
                explain("faces to be aligned without a detector", "dlib and its model of 68 points",
                        'pip install "ganinv[align]", and start the demo again')
            )  # fmt: skip
        return Aligned(photos, self.detector, max(self.size))

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        """(H, W) px that E reads, and that a method compares."""
        return [self.model.input_size, self.size]

    def _target(self, key: str, pixels: Sequence[Tensor]) -> Target:
        s, x = (part[None].to(self.device) for part in pixels)
        s = self.task.read(s)
        seeds = [derive_seed(0, "inversion", key.partition(" ")[2])]
        return Target(x=to_unit(x) if self.inverts else s, s=s, key=[key], seeds=seeds)

    def _photo(self, target: Target) -> Tensor:
        """[1,3,H,W]: what is to be seen of what was read."""
        return target.x if self.inverts else self.task.picture(target.s)

    # ------------------------------------------------------------------ sliders -> images, files

    def edited(self, session: Session, place: int, strengths: Sequence[float]) -> Inversion:
        """An inversion moved along every direction by its slider's strength."""
        found = session.found[place]
        for control, strength in zip(self.controls, strengths, strict=True):
            if strength:
                found = move(found, control.direction, strength)
        return found

    def pictures(self, found: Inversion) -> Tensor:
        """uint8 [B,3,R,R] on the CPU."""
        with torch.inference_mode():
            return to_uint8(render(self.model.G, joined([found], self.device))).cpu()

    def picture(self, found: Inversion) -> np.ndarray:
        """uint8 [R,R,3] of an inversion of one image."""
        return _rgb(self.pictures(found))

    def files(
        self, session: Session, place: int, strengths: Sequence[float], along: str, tell: Tell
    ) -> list[Path]:
        """What is to be downloaded of an edited face: the strip along a direction first, then its
        video, the image, and the code as `ganinv edit` and `ganinv export` read it and as `.npy`.

        Args:
            session: of the face.
            place: the face's.
            strengths: of all sliders; that of `along` is not looked at.
            along: the label of a control.
            tell: is told how far it is.

        Raises:
            ConfigError: no such direction.
        """
        labels = [control.label for control in self.controls]
        if along not in labels:
            raise ConfigError(
                explain(f"the direction {along}", f"one of {', '.join(labels[:8])}", "choose one")
            )
        column = labels.index(along)
        moved = self.edited(session, place, strengths)
        S = self.strength
        frames = strip.video_strengths([-S, S])
        shown: list[float] = np.linspace(-S, S, STRIP).round(6).tolist()
        todo = sorted({*frames, *shown})
        images = {}
        for done, value in enumerate(todo):
            tell(done / len(todo), f"strip and video: {done} of {len(todo)} images")
            given = [value if i == column else old for i, old in enumerate(strengths)]
            images[value] = self.pictures(self.edited(session, place, given))
        folder, name = Path(session.files.name), _stem(session.names[place])
        row = torch.cat([images[value] for value in shown])
        ribbon = strip.strip([row], [signed(value) for value in shown])
        code = io.BytesIO()
        np.save(code, moved.wp[0].numpy(), allow_pickle=False)
        paths = [folder / f"{name}-{_stem(along)}-strip.png"]
        write_atomic(paths[0], png(ribbon))
        paths.append(_video(paths[0], [strip.frame(images[value]) for value in frames]))
        for suffix, data in (
            (".png", png(fromarray(self.picture(moved)))),
            (".npy", code.getvalue()),
        ):
            paths.append(folder / f"{name}-edited{suffix}")
            write_atomic(paths[-1], data)
        paths.append(folder / f"{name}-edited.safetensors")
        about = {"key": session.names[place], "method": "ganinv demo"}
        write_inversion(paths[-1], moved, 0, self.model.G, about)
        return paths


# ------------------------------------------------------------------ words and pixels


def _told(session: Session, method: str, seconds: float, failed: list[str]) -> str:
    count = len(session.names)
    words = f"{count} photo{'s' if count > 1 else ''} inverted by {method} in {seconds:.1f} s"
    return f"{words}. Left out: {'; '.join(failed)}" if failed else words


def _reason(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0], 200)


def _rgb(image: Tensor) -> np.ndarray:
    """uint8 [1,3,H,W] -> [H,W,3]."""
    return image[0].permute(1, 2, 0).contiguous().numpy()


def _stem(name: str) -> str:
    """A name of a file, of what a visitor or a file called something."""
    return re.sub(r"[^\w.+-]", "_", Path(name).stem)[:60].lstrip(".") or "_"


def _video(beside: Path, frames: list[Any]) -> Path:
    """The video: MP4 where ffmpeg is installed, else an animated WebP."""
    try:
        strip.check_video("mp4")
    except ConfigError:
        path = beside.with_name(beside.name.replace("-strip.png", ".webp"))
        write_atomic(path, strip.animation(frames))
        return path
    path = beside.with_name(beside.name.replace("-strip.png", ".mp4"))
    strip.write_mp4(path, frames)
    return path
