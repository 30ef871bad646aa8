"""Evaluation of a checkpoint: every inversion method over a split, measured and written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from ganinv import __version__
from ganinv.config.stored import StoredConfig
from ganinv.core.errors import ConfigError, explain
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Batch, Inversion, Target
from ganinv.core.safe.io import write_atomic
from ganinv.core.seed import derive_seed
from ganinv.evaluation import report, table
from ganinv.evaluation.open import Opened
from ganinv.evaluation.result import Picture, Result, Row
from ganinv.inversion.model import Model
from ganinv.metric.metric import Metric

SPLITS = ("train", "val", "test")
WORST = 8
MOVED = ("image", "source")
T = TypeVar("T")
Invert = Callable[[Target], Inversion]


def refuse(cfg: DictConfig) -> None:
    """Look at the options before anything is loaded.

    Raises:
        ConfigError: an option that cannot work, or a report that would be written over.
    """
    if OmegaConf.is_missing(cfg, "checkpoint"):
        _refuse("no checkpoint", "one that train.py wrote", "add checkpoint=PATH to the command")
    if cfg.split not in SPLITS:
        _refuse(f"split={cfg.split}", f"one of {', '.join(SPLITS)}", "set split")
    for name in ("limit", "batch_size", "pictures"):
        value = cfg[name]
        if value is not None and value < 1:
            _refuse(f"{name}={value}", "a whole number of at least 1", f"set {name}")
    for group in ("inversion", "metric"):
        if not cfg.get(group):
            _refuse(f"no {group}", "at least one", f"set {group}=[...]")
    if cfg.output is not None and Path(cfg.output).exists():
        _refuse(
            f"output={cfg.output}, which exists",
            "a folder that does not exist yet",
            "choose another; nothing was overwritten",
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
        _refuse(
            f"checkpoint={cfg.checkpoint} ({opened.words}), which names no dataset",
            "dataset=NAME, of images as its encoder reads them",
            "add e.g. dataset=ffhq256 to the command",
        )
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
        _refuse(
            f"a dataset of {given} px for an encoder of {wanted} px",
            "images of the encoder's size",
            "choose another dataset=...",
        )


def device_of(name: str) -> torch.device:
    """auto: the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        _refuse(f"device={name}", "a device of this machine", "set device=cpu")
    return device


def measure(
    model: Model,
    loader: Iterable[Batch],
    total: int,
    inversions: Mapping[str, Invert],
    metrics: list[Metric],
    facts: dict[str, Any],
    *,
    seed: int,
    pictures: int,
    device: torch.device,
) -> Result:
    """Invert and measure every image with every inversion method.

    Args:
        model: E and G.
        loader: batches of the split, from the start each time it is iterated.
        total: its number of images.
        inversions: name -> Target -> Inversion.
        metrics: the columns.
        facts: what is evaluated.
        seed: of what the task and synthetic images draw.
        pictures: images to show.
        device: of the computation.
    """
    higher_is_better = {
        name: way for metric in metrics for name, way in metric.higher_is_better.items()
    }
    result = Result(facts, higher_is_better)
    for name, invert in inversions.items():
        row, keys = Row(name, {}, 0.0, [], [], []), []
        watch = Stopwatch(device)
        bar = tqdm(total=total, unit="img", desc=name, leave=False)
        for batch in limited(loader, total):
            parts: dict[str, Any] = dict(batch)
            on_device: Any = {k: v.to(device) if k in MOVED else v for k, v in parts.items()}
            target = target_of(model, on_device, seed)
            found = watch.time(len(target.x), _rendered, model, invert, target)
            x_hat = to_unit(to_uint8(found))  # as it would be saved
            x, s = target.x, target.s
            keys += batch["key"]
            source = None if s is x else model.task.picture(s)
            _take(row, batch["key"], x, x_hat, metrics, pictures, result, source)
            bar.update(len(x))
        bar.close()
        row.values = _means(row.per_image)
        for metric in metrics:
            row.values |= metric.compute()
        row.ms_per_image = watch.ms_per_item()
        result.rows.append(row)
        result.keys = keys
    return result


def target_of(model: Model, batch: Batch, seed: int) -> Target:
    """What is to be inverted of a batch on the device."""
    x = model.images(batch, seed)
    seeds = [derive_seed(seed, "source", p) for p in batch["position"].tolist()]
    s = model.encoder_input(x, batch.get("source"), seeds)
    return Target(x=x, s=s, key=batch["key"], seeds=seeds)


@torch.no_grad()
def _rendered(model: Model, invert: Invert, target: Target) -> Tensor:
    return model.render(invert(target), target.x.shape[-2:])


def limited(loader: Iterable[Batch], total: int) -> Iterator[Batch]:
    """The first `total` images, the last batch cut."""
    left = total
    for batch in loader:
        count = min(left, len(batch["key"]))
        if count == 0:
            return
        parts: dict[str, Any] = {k: v for k, v in batch.items() if k != "skipped"}
        left -= count
        yield {name: value[:count] for name, value in parts.items()}  # type: ignore[misc]
        if left == 0:
            return


class Stopwatch:
    """The time of the inversions; the first batch, which warms up, counts only when alone."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: list[tuple[float, int]] = []  # seconds, items

    def time(self, items: int, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments), timed, with all work on the device done."""
        self._wait()
        start = time.perf_counter()
        value = function(*arguments)
        self._wait()
        self.laps.append((time.perf_counter() - start, items))
        return value

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def ms_per_item(self) -> float:
        """Milliseconds an item."""
        laps = self.laps[1:] or self.laps
        return 1000 * sum(seconds for seconds, _ in laps) / sum(items for _, items in laps)


def _take(
    row: Row,
    keys: list[str],
    x: Tensor,
    x_hat: Tensor,
    metrics: list[Metric],
    pictures: int,
    result: Result,
    source: Tensor | None,
) -> None:
    """Measure a batch; keep its values and the pictures that will be shown."""
    columns: dict[str, Tensor] = {}
    with torch.no_grad():
        for metric in metrics:
            columns |= metric(x_hat, x)
    lists = {name: value.double().tolist() for name, value in columns.items()}
    values = [{name: lists[name][i] for name in lists} for i in range(len(keys))]
    row.per_image += values
    judge = next((n for n in lists if result.higher_is_better[n] == "lower"), None)
    for i, key in enumerate(keys):
        show_first = len(row.first) < pictures
        if not show_first and judge is None:
            continue
        read = None if source is None else to_uint8(source[i]).cpu()
        picture = Picture(key, to_uint8(x[i]).cpu(), to_uint8(x_hat[i]).cpu(), values[i], read)
        if show_first:
            row.first.append(picture)
        if judge is not None:
            row.worst.append(picture)
    if judge is not None:
        row.worst = sorted(row.worst, key=lambda p: -p.values[judge])[:WORST]


def _means(per_image: list[dict[str, float]]) -> dict[str, float]:
    names = per_image[0] if per_image else {}
    return {name: sum(v[name] for v in per_image) / len(per_image) for name in names}


def facts_of(cfg: DictConfig, opened: Opened, device: torch.device) -> dict[str, Any]:
    """What the report says about what was evaluated."""
    data = dataset_of(cfg, opened)["dataset"]
    return {
        "checkpoint": str(cfg.checkpoint),
        "method": opened.kind,
        "kimg": None if opened.images_seen is None else opened.images_seen / 1000,
        "generator": opened.generator.source,
        "generator_sha256": opened.generator.sha256,
        "dataset": data.get("root") or data["_target_"].rsplit(".", 1)[-1],
        "split": cfg.split,
        "batch_size": cfg.batch_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "ganinv": __version__,
        "torch": torch.__version__,
    }


def output_folder(cfg: DictConfig, opened: Opened) -> Path:
    """The asked folder, or a new one: in the run's or, of a file of no run, beside the file."""
    if cfg.output is not None:
        return Path(cfg.output)
    path, what = opened.path.resolve(), "-".join(cfg.inversion)
    if opened.images_seen is None:
        parent, stem = path.parent / f"{path.stem}-evaluation", f"{cfg.split}-{what}"
    else:
        parent = path.parent.parent / "evaluation"
        stem = f"{cfg.split}-{opened.images_seen / 1000:g}kimg-{what}"
    names = [stem, *(f"{stem}-{i}" for i in range(2, 10_000))]
    return next(p for name in names if not (p := parent / name).exists())


def write(result: Result, folder: Path) -> None:
    """metrics.json, images.csv, a grid for each inversion method, report.html; then the table."""
    folder.mkdir(parents=True)
    write_atomic(folder / "metrics.json", result.json().encode())
    write_atomic(folder / "images.csv", result.csv().encode())
    for row in result.rows:
        report.grid(row.first).save(folder / f"grid-{row.inversion}.png")
    title = f"{result.facts['method']} on {result.facts['split']}"
    write_atomic(folder / "report.html", report.page(result, title).encode())
    console = Console()
    table.show(result, console)
    console.print(f"{len(result.keys)} images of {result.facts['split']}")
    for name in [f"grid-{row.inversion}.png" for row in result.rows] + ["report.html"]:
        print(folder / name)


def _refuse(given: str, expected: str, todo: str) -> None:
    raise ConfigError(explain(given, expected, todo))
