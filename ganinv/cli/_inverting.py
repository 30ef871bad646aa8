"""The work of `ganinv invert`: images of a folder to codes and pictures, in numbered batches.

A part holds wp [B,L,D] and `seconds` [B] of a batch's readable images; of a method that optimises
also `steps` [B] and `loss` [B,K] at K of its T steps (`evaluation/curve.py`), with T and the loss's
name beside them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganinv.cli._align_options import align_settings
from ganinv.cli._inputs import compared, read, read_mask, targets, task_of
from ganinv.cli._methods import plain_methods
from ganinv.cli._pasting import Pasting
from ganinv.config.inversions import build_inversions
from ganinv.core.errors import ConfigError, explain
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Inversion, Target
from ganinv.core.safe.io import sha256_file, write_atomic
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.dataset.codec import encode
from ganinv.dataset.source import Source
from ganinv.editing.mix import mix
from ganinv.evaluation.curve import loss_rows
from ganinv.evaluation.open import open_model
from ganinv.evaluation.ranks import Ranks
from ganinv.evaluation.work import GO_ON, Part, Work, cut
from ganinv.inversion.encode import Encode
from ganinv.inversion.file import write_inversion
from ganinv.inversion.model import Model
from ganinv.inversion.optimise import check_batches, check_targets, failed_keys
from ganinv.run.disk import disk_errors
from ganinv.run.storage.fetch import local


@dataclass(frozen=True)
class Inverting:
    """All that a process needs to know; it travels."""

    checkpoint: Path | str  # a path or an address
    generator: Path | None
    source: Source
    names: list[str]
    batch_size: int
    fit: str
    device: str
    task: str | None
    outputs: int
    mix_layers: list[int]
    mix_alpha: float
    seed: int
    method: str = "encode"
    methods: DictConfig | None = None  # nodes of conf/inversion; None: the encoder alone
    size: int | None = None  # px a side at which a method compares; None: what the encoder reads
    masks: Source | None = None  # of the same names as images
    pasting: Pasting | None = None  # contexts in which a box of each image stays

    @property
    def batches(self) -> list[range]:
        """Places in `names`."""
        return cut(len(self.names), self.batch_size)

    def open(self, ranks: Ranks) -> Inverter:
        """Load the model."""
        return Inverter(self, open_model(self.checkpoint, self.generator).model, ranks)

    def settings(self, items: list[tuple[str, str]], model: Model) -> dict[str, Any]:
        """All that the codes and pictures depend on.

        Args:
            items: name and mark of each image, as the source lists them.
            model: of the checkpoint.
        """
        mixing = [self.outputs, self.mix_layers, self.mix_alpha, self.seed]
        return {
            "command": "ganinv invert",
            "checkpoint_sha256": sha256_file(local(self.checkpoint)),
            "generator_sha256": model.G.sha256,
            "images_sha256": hashlib.sha256(repr(items).encode()).hexdigest(),
            "batch_size": self.batch_size,
            "fit": self.fit,
            "align": align_settings(self.source),
            "size": list(model.input_size),
            "num_ws": model.num_ws,
            "w_dim": model.w_dim,
            "task": type(task_of(model, self.task)).__name__,
            "mixing": mixing if self.outputs > 1 else None,
            "method": self.method,
            "methods": None if self.methods is None else plain_methods(self.methods),
            "method_size": self.size,
            "method_seed": self.seed if self.methods is not None else None,
            "masks": None if self.masks is None else repr(self.masks.items()),
            "paste": None if self.pasting is None else self.pasting.settings,
        }


class Inverter:
    """Inverts batches, in one process.

    Args:
        job: what is inverted.
        model: of its checkpoint; moved to the device.
        ranks: this process, which has the next GPU of its machine.
    """

    def __init__(self, job: Inverting, model: Model, ranks: Ranks) -> None:
        self.job, self.source = job, job.source
        self.targets = targets(job.names)
        self.device = _device(job.device, ranks)
        self.model, self.task = model.to(self.device), task_of(model, job.task)
        self.method: Callable[[Target], Inversion] = Encode(model=self.model)
        if job.methods is not None:
            made = build_inversions(job.methods.inversion, self.model)
            self.method = made[job.method]
            check_batches({f"--method {job.method}": self.method}, len(job.names), job.batch_size)
            check_targets({job.method: self.method}, self.model, self.compared)

    def __call__(
        self, work: Work, numbers: list[int]
    ) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Any]]]:
        """Batch after batch: pictures into the work's folder, codes into parts."""
        for number in numbers:
            with disk_errors(work.folder, GO_ON):
                part = self.invert(work.folder, number)
            yield number, *part

    def invert(self, out: Path, number: int) -> Part:
        """The part of a batch; its pictures and, of a method, its inversions go to `out`."""
        names, pixels, failed = [], [], []
        for place in self.job.batches[number]:
            name = self.job.names[place]
            found = self._read(name)
            if isinstance(found, str):
                failed.append([name, found])
            else:
                names.append(name)
                pixels.append(found)
        if not pixels:
            codes = torch.empty(0, self.model.num_ws, self.model.w_dim)
            return {"wp": codes, "seconds": torch.empty(0)}, {"names": [], "failed": failed}
        start = time.perf_counter()
        inversion = self.method(self._target(names, pixels))
        codes = inversion.wp.float().cpu()  # all work on the device is done
        seconds = (time.perf_counter() - start) / len(names)
        tensors = {"wp": codes, "seconds": torch.full((len(names),), seconds)}
        if (trace := getattr(self.method, "trace", None)) is not None:
            tensors |= {"steps": torch.tensor(trace.steps), "loss": loss_rows(trace)}
        with torch.inference_mode():
            for output in range(self.job.outputs):
                mixed = replace(inversion, wp=self._mixed(inversion.wp, names, output))
                self._write(out, names, mixed, output)
        if self.job.methods is not None:
            self._keep(out, names, inversion)
        return tensors, {
            "names": names,
            "failed": failed,
            "not_finite": failed_keys(self.method),
            "trace": None if trace is None else [trace.shown, len(trace.values[trace.shown])],
        }

    @property
    def compared(self) -> tuple[int, int]:
        """(H, W) px at which a method compares images."""
        return compared(self.model, self.job.size)

    def _target(self, names: list[str], pixels: list[tuple[Tensor, ...]]) -> Target:
        """What is to be inverted: s, and where a method compares images x and their masks."""
        s = self.task.read(torch.stack([one[0] for one in pixels]).to(self.device))
        seeds = [derive_seed(self.job.seed, "inversion", name) for name in names]
        if self.job.methods is None:
            return Target(x=s, s=s, key=names, seeds=seeds)
        x = to_unit(torch.stack([one[1] for one in pixels]).to(self.device))
        mask = torch.stack([one[2] for one in pixels]).to(x) if len(pixels[0]) > 2 else None
        return Target(x=x, s=s, key=names, seeds=seeds, mask=mask)

    def _keep(self, out: Path, names: list[str], found: Inversion) -> None:
        """A file of each image's inversion."""
        for row, name in enumerate(names):
            path = (out / "inversions" / self.targets[name]).with_suffix(".safetensors")
            about = {"key": name, "method": self.job.method}
            write_inversion(path, found, row, self.model.G, about)

    def _mixed(self, wp: Tensor, names: list[str], output: int) -> Tensor:
        """The codes of an output: the first are the encoder's own, the others mixed."""
        if output == 0:
            return wp
        generator = self.model.G
        seeds = [derive_seed(self.job.seed, "mix", name, output) for name in names]
        w = generator.mapping(randn_rows(seeds, (generator.z_dim,), self.device))
        return mix(wp, w, self.job.mix_layers, self.job.mix_alpha)

    def _write(self, out: Path, names: list[str], found: Inversion, output: int) -> None:
        shown = to_uint8(self.model.render(found)).permute(0, 2, 3, 1).cpu().numpy()
        for name, picture in zip(names, shown, strict=True):
            target = self.targets[name]
            if output:
                target = f"{target.removesuffix('.png')}-mix{output}.png"
            write_atomic(out / "images" / target, encode(picture, "png", 95))

    def _read(self, name: str) -> tuple[Tensor, ...] | str:
        """uint8 [C0,H,W] for the encoder and, of a method, [3,S,S] to compare with and where there
        are masks or contexts [1,S,S]; or why it could not be read."""
        size = self.model.input_size
        wanted = self.compared
        try:
            data = self.source.read(name)
            s = read(data, self.task, size, self.job.fit)
            if self.job.methods is None:
                return (s,)
            x = s if wanted == size else read(data, self.task, wanted, self.job.fit)
            if (pasting := self.job.pasting) is not None:
                scene = pasting.context_of(name)
                behind = [read(scene, self.task, one, self.job.fit) for one in (size, wanted)]
                return pasting(s, behind[0])[0], *pasting(x, behind[1])
            if self.job.masks is None:
                return s, x
            return s, x, read_mask(self.job.masks, name, wanted, self.job.fit)
        except Exception as error:  # a broken image ends in any of a dozen kinds; none stops us
            return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _device(name: str, ranks: Ranks) -> torch.device:
    """auto, cpu, cuda (each process the next GPU) or cuda:N.

    Raises:
        ConfigError: no such device here.
    """
    if name in ("auto", "cpu", "cuda"):
        try:
            return ranks.device(name)
        except ConfigError:
            pass
    elif name.startswith("cuda:") and name[5:].isdigit():
        if int(name[5:]) < torch.cuda.device_count():
            return torch.device(name)
    raise ConfigError(
        explain(f"--device {name}", "a device of this machine: auto, cpu, cuda or cuda:N",
                "leave it out, or --device cpu")
    )  # fmt: skip
