"""Evaluation of a checkpoint: every inversion method over a split, measured and written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from ganinv import __version__
from ganinv.core.errors import ConfigError, explain
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Batch, Inversion
from ganinv.core.safe.io import write_atomic
from ganinv.evaluation import report, table
from ganinv.evaluation.result import Picture, Result, Row
from ganinv.evaluation.trained import Trained
from ganinv.method.inverting import EncoderMethod
from ganinv.metric.metric import Metric

SPLITS = ("train", "val", "test")
WORST = 8
MOVED = ("image", "source")
T = TypeVar("T")
Invert = Callable[[Tensor, torch.Size], Inversion]


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


def encoder_of(trained: Trained, path: str) -> EncoderMethod:
    """The method of a checkpoint, if it has an encoder.

    Raises:
        ConfigError: it has none.
    """
    if not isinstance(trained.method, EncoderMethod) or not trained.method.inverts:
        name = type(trained.method).__name__
        _refuse(
            f"checkpoint={path}, made by {name}, which has no encoder from images to W+",
            "one of a method that trains such an encoder",
            "pass such a checkpoint, or train one on this generator: python train.py",
        )
    assert isinstance(trained.method, EncoderMethod)
    return trained.method


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
    method: EncoderMethod,
    loader: Iterable[Batch],
    total: int,
    inversions: Mapping[str, Invert],
    metrics: list[Metric],
    facts: dict[str, Any],
    *,
    pictures: int,
    device: torch.device,
) -> Result:
    """Invert and measure every image with every inversion method.

    Args:
        method: the trained method, which knows what its encoder reads of a batch.
        loader: batches of the split, from the start each time it is iterated.
        total: its number of images.
        inversions: name -> s [B,C,H,W], size -> Inversion.
        metrics: the columns.
        facts: what is evaluated.
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
            x = method.images(on_device)
            s = method.encoder_input(on_device, x)
            found = watch.time(len(x), invert, s, x.shape[-2:])
            x_hat = to_unit(to_uint8(found.image))  # as it would be saved
            keys += batch["key"]
            source = None if s is x else method.task.picture(s)
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


def facts_of(cfg: DictConfig, trained: Trained, device: torch.device) -> dict[str, Any]:
    """What the report says about what was evaluated."""
    data = cfg.get("dataset") or trained.cfg.dataset
    return {
        "checkpoint": str(cfg.checkpoint),
        "method": type(trained.method).__name__,
        "kimg": trained.images_seen / 1000,
        "generator": trained.provenance["generator_source"],
        "generator_sha256": trained.provenance["generator_sha256"],
        "dataset": data.get("root") or data["_target_"].rsplit(".", 1)[-1],
        "split": cfg.split,
        "batch_size": cfg.batch_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "ganinv": __version__,
        "torch": torch.__version__,
    }


def output_folder(cfg: DictConfig, trained: Trained) -> Path:
    """The asked folder, or a new one in the run's."""
    if cfg.output is not None:
        return Path(cfg.output)
    run = Path(cfg.checkpoint).resolve().parent.parent
    stem = f"{cfg.split}-{trained.images_seen / 1000:g}kimg-{'-'.join(cfg.inversion)}"
    names = [stem, *(f"{stem}-{i}" for i in range(2, 10_000))]
    return next(p for name in names if not (p := run / "evaluation" / name).exists())


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
