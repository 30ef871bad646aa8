"""Evaluation in numbered batches: each inverts some images with one method and measures them.

A part (`work.py`) holds the metrics' rows of its images, `<metric>/<row>` [B] or [B,F], and
`seconds` [B]; of optimising methods also `steps` [B] and `loss` [B,K] (`curve.py`). Beside them are
the images' keys, those that came to no finite number, and whether the process was warm: the first
batch of a process is not timed unless there is no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganinv.config.build import build_data
from ganinv.config.check import check
from ganinv.config.instantiate import instantiate
from ganinv.config.inversions import build_inversions
from ganinv.config.probe import load_probe
from ganinv.config.stored import StoredConfig
from ganinv.core.errors import ConfigError, explain
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Batch, Inversion, Target
from ganinv.core.seed import derive_seed
from ganinv.editing.direction import check_generator
from ganinv.evaluation.curve import loss_rows
from ganinv.evaluation.edits import SHOWN, build_edits, edited, keep_strips, rows_of
from ganinv.evaluation.open import Opened, open_model
from ganinv.evaluation.pictures import Pictures
from ganinv.evaluation.ranks import Ranks
from ganinv.evaluation.result import Picture, judge_of
from ganinv.evaluation.work import Part, Work, cut
from ganinv.inversion.model import Model
from ganinv.inversion.optimise import check_batches, check_targets, failed_keys
from ganinv.metric.metric import Edit, Given, Metric, Sample
from ganinv.task.image import Image

MOVED = ("image", "source")
T = TypeVar("T")
Invert = Callable[[Target], Inversion]


@dataclass(frozen=True)
class Numbered:
    """A batch: some images of the set, and the method that inverts them."""

    inversion: str
    images: range  # places in the split


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: the config, which travels to other processes.

    Args:
        cfg: the composed config of evaluate.py, resolved.
    """

    cfg: DictConfig

    def open(self, ranks: Ranks) -> Measurement:
        """Load all that it needs.

        Raises:
            ConfigError, DataError, WeightsError, WeightsMissing: what cannot work.
        """
        cfg = self.cfg
        device = ranks.device(cfg.trainer.accelerator)
        torch.manual_seed(cfg.seed)
        opened = open_model(cfg.checkpoint, cfg.generator_weights)
        model = opened.model
        data = build_data(dataset_of(cfg, opened), model.task, batch_size=cfg.batch_size)
        check_input_size(model, data.image_size)
        check(model.G, data, [cfg.split])
        data.prepare_data()
        inversions = build_inversions(cfg.inversion, model)
        edits = build_edits(cfg.get("editing"), model, inversions)
        metrics = {str(name): instantiate(part) for name, part in cfg.metric.items()}
        given = Given(edits, type(model.task) is Image, load_probe)
        for metric in metrics.values():
            metric.connect(given)
            metric.to(device)
            if (direction := getattr(metric, "direction", None)) is not None:
                check_generator(direction, model.G)
        model.to(device).to(memory_format=torch.channels_last)
        return Measurement(
            cfg=cfg,
            opened=opened,
            data=data,
            inversions=inversions,
            edits=edits,
            metrics=metrics,
            device=device,
        )


def dataset_of(cfg: DictConfig, opened: Opened) -> DictConfig | StoredConfig:
    """The config that names the dataset: what was typed or, where it has none, the training run's.

    Raises:
        ConfigError: neither has one.
        WeightsError: the file's is no config.
    """
    if cfg.get("dataset"):
        return cfg
    if not opened.config.get("dataset"):
        given = f"checkpoint={cfg.checkpoint} ({opened.words}), which names no dataset"
        expected = "dataset=NAME, of images as its encoder reads them"
        raise ConfigError(explain(given, expected, "add e.g. dataset=ffhq256 to the command"))
    return StoredConfig(opened.config, opened.path)


def seed_of(cfg: DictConfig, opened: Opened) -> int:
    """The seed of the training run, whose synthetic images are then the same; else evaluate's."""
    trained = opened.config.get("method")
    seed = trained.get("seed") if isinstance(trained, dict) else None
    return seed if type(seed) is int else int(cfg.seed)


def check_input_size(model: Model, image_size: Sequence[int]) -> None:
    """Refuse images of another size than the encoder reads.

    Raises:
        ConfigError: naming both.
    """
    if tuple(image_size) != model.input_size:
        given, wanted = (" x ".join(map(str, size)) for size in (image_size, model.input_size))
        raise ConfigError(
            explain(
                f"a dataset of {given} px for an encoder of {wanted} px",
                "images of the encoder's size",
                "choose another dataset=...",
            )
        )


def target_of(model: Model, batch: Batch, seed: int) -> Target:
    """What is to be inverted of a batch on the device; random numbers are functions of (seed,
    purpose, key), so those of an image do not depend on which others are evaluated."""
    x = model.images(batch, seed)
    source = [derive_seed(seed, "source", key) for key in batch["key"]]
    seeds = [derive_seed(seed, "inversion", key) for key in batch["key"]]
    s = model.encoder_input(x, batch.get("source"), source)
    return Target(x=x, s=s, key=batch["key"], seeds=seeds)


class Measurement:
    """Inverts and measures batches.

    Args:
        cfg: of evaluate.py.
        opened: the checkpoint.
        data: the data module.
        inversions: name -> Target -> Inversion.
        edits: name -> edit; of the first images.
        metrics: name -> columns.
        device: of the computation.

    Raises:
        ConfigError: two metrics with one column.
    """

    def __init__(
        self,
        *,
        cfg: DictConfig,
        opened: Opened,
        data: Any,
        inversions: dict[str, Invert],
        edits: dict[str, Edit],
        metrics: dict[str, Metric],
        device: torch.device,
    ) -> None:
        self.cfg, self.opened, self.model, self.data = cfg, opened, opened.model, data
        self.inversions, self.metrics, self.device = inversions, metrics, device
        self.edits = edits
        self.higher_is_better: dict[str, bool] = {}
        for name, metric in metrics.items():
            twice = sorted(set(metric.higher_is_better) & set(self.higher_is_better))
            if twice:
                given = f"metric={name}, whose column {twice[0]} another metric has"
                raise ConfigError(explain(given, "a name for each", f"set metric.{name}.column"))
            self.higher_is_better |= metric.higher_is_better
        self.total = min(data.count(cfg.split), cfg.limit or data.count(cfg.split))
        check_batches(inversions, self.total, cfg.batch_size)
        check_targets(inversions, self.model, data.image_size)
        self.batches = [
            Numbered(name, images)
            for name in inversions
            for images in cut(self.total, cfg.batch_size)
        ]
        self.watches = {name: Stopwatch(device) for name in inversions}

    def __call__(
        self, work: Work, numbers: list[int]
    ) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Any]]]:
        """Measure batches, in this order; one without a readable image has no rows."""
        wanted = [list(self.batches[number].images) for number in numbers]
        left = iter(numbers)
        for batch in self.data.eval_dataloader(self.cfg.split, wanted):
            place = int(batch["position"][0])
            for number in left:
                if place in self.batches[number].images:
                    yield number, *self.measure(work, self.batches[number], batch)
                    break
                yield number, {}, {"keys": [], "warm": False, "skipped": _whole(self, number)}
        for number in left:
            yield number, {}, {"keys": [], "warm": False, "skipped": _whole(self, number)}

    def measure(self, work: Work, numbered: Numbered, batch: Batch) -> Part:
        """The part of one batch; its pictures go to the work's folder."""
        name, watch = numbered.inversion, self.watches[numbered.inversion]
        parts: dict[str, Any] = dict(batch)
        moved: Any = {k: v.to(self.device) if k in MOVED else v for k, v in parts.items()}
        target = target_of(self.model, moved, seed_of(self.cfg, self.opened))
        x, s = target.x, target.s
        invert = self.inversions[name]
        with self._autocast():
            found, seconds = watch.time(invert, target)
        found = _in_float32(found)
        trace, failed = getattr(invert, "trace", None), failed_keys(invert)  # of x alone
        with torch.no_grad():
            shown = to_uint8(self.model.render(found, x.shape[-2:]))
        x_hat = to_unit(shown)  # as it would be saved

        def again(image: Tensor) -> Inversion:
            with torch.enable_grad(), self._autocast():
                return _in_float32(invert(replace(target, x=image, s=image)))

        sample = Sample(x, x_hat, found, parts.get("attributes"), self.model, again, target.seeds)
        rows = self._rows(sample)
        rows["seconds"] = torch.full((len(x),), seconds / len(x), dtype=torch.float64)
        if trace is not None:
            rows |= {"steps": torch.tensor(trace.steps), "loss": loss_rows(trace)}
        source = None if s is x else self.model.task.picture(s)
        self._keep_pictures(work, name, batch, sample, rows, source)
        self._keep_edits(work, name, batch, found, x.shape[-2:])
        known = {"keys": batch["key"], "skipped": parts.get("skipped", []), "warm": watch.laps > 1}
        return rows, known | {"failed": failed}

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = torch.bfloat16 if self.cfg.trainer.precision == "bf16-mixed" else None
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    @torch.no_grad()
    def _rows(self, sample: Sample) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = {}
        for name, metric in self.metrics.items():
            missing = [entry for entry in metric.needs if not sample.has(entry)]
            if missing:
                given = f"metric={name}, which needs {missing[0]}, on images without"
                raise ConfigError(explain(given, "what it measures", f"leave {name} out"))
            rows |= {f"{name}/{row}": value.cpu() for row, value in metric(sample).items()}
        return rows

    def columns(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """The columns known of each image, [N] each, among the rows of a part."""
        found = {row.rpartition("/")[2]: value for row, value in rows.items()}
        return {name: found[name] for name in self.higher_is_better if name in found}

    def pictures(self, work: Work, inversion: str) -> Pictures:
        """Where the pictures of an inversion method are kept."""
        return Pictures(work.parts_folder / f"pictures-{inversion}", self.cfg.pictures)

    def _keep_edits(
        self, work: Work, inversion: str, batch: Batch, found: Inversion, size: torch.Size
    ) -> None:
        """The strips of those images of the batch that the report shows."""
        first = min(SHOWN, self.cfg.pictures)
        places = batch["position"].tolist()
        shown = [i for i, number in enumerate(places) if number < first]
        if shown and self.edits:
            pictures = edited(self.edits, self.model, rows_of(found, shown), size)
            keys, numbers = [batch["key"][i] for i in shown], [places[i] for i in shown]
            keep_strips(self.pictures(work, inversion).folder, pictures, keys, numbers)

    def _keep_pictures(
        self,
        work: Work,
        inversion: str,
        batch: Batch,
        sample: Sample,
        rows: dict[str, Tensor],
        source: Tensor | None,
    ) -> None:
        columns = {name: value.tolist() for name, value in self.columns(rows).items()}
        judge = judge_of(self.higher_is_better, set(columns))
        pictures = self.pictures(work, inversion)
        image, reconstruction = to_uint8(sample.x).cpu(), to_uint8(sample.x_hat).cpu()
        read = None if source is None else to_uint8(source).cpu()
        for i, number in enumerate(batch["position"].tolist()):
            values = {name: column[i] for name, column in columns.items()}
            pictures.keep(
                number,
                None if judge is None else values[judge],
                Picture(
                    batch["key"][i],
                    image[i],
                    reconstruction[i],
                    values,
                    None if read is None else read[i],
                ),
            )


def _in_float32(found: Inversion) -> Inversion:
    """What autocast left in another type; its images and numbers are float32's."""

    def float32(maps: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        return None if maps is None else {name: value.float() for name, value in maps.items()}

    f = None if found.f is None else found.f.float()
    return Inversion(found.wp.float(), f, float32(found.noise), float32(found.weights))


def _whole(measurement: Measurement, number: int) -> list[str]:
    images = measurement.batches[number].images
    return [f"images {images.start} to {images.stop - 1}: none can be read"]


class Stopwatch:
    """Times calls, with all work on the device done."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.laps = device, 0

    def time(self, function: Callable[..., T], *arguments: Any) -> tuple[T, float]:
        """function(*arguments), and the seconds it took."""
        self._wait()
        start = time.perf_counter()
        value = function(*arguments)
        self._wait()
        self.laps += 1
        return value, time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
