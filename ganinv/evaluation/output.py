"""Around an evaluation: its folder, and what is joined and written at its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ganinv import __version__
from ganinv.config.build import plain
from ganinv.core.errors import config_error
from ganinv.core.safe.io import sha256_file, write_atomic
from ganinv.evaluation import report, strip, table
from ganinv.evaluation.curve import curve_of
from ganinv.evaluation.edits import read_strips
from ganinv.evaluation.measure import Measurement, dataset_of
from ganinv.evaluation.options import begun
from ganinv.evaluation.ranks import Ranks
from ganinv.evaluation.result import Result, Row
from ganinv.evaluation.work import GO_ON, Part, Work
from ganinv.run.disk import disk_errors
from ganinv.run.launch import agree
from ganinv.run.storage.base import is_address

RESULT = "metrics.json"
PATIENCE = 60.0  # seconds until the parts of another machine may be seen
WIDE = 160  # columns of a table that no terminal limits
LISTED = 10  # unreadable images that are printed; the report has all
NOT_RESULTS = ("num_workers", "batch_size", "cache_gib", "max_bad_fraction")  # of a dataset


def begin(measurement: Measurement, ranks: Ranks) -> tuple[Work, list[int]]:
    """Rank 0 chooses the folder and makes it ready, and all ranks go by it: the work, and the
    numbers of the batches that are left to do.

    Raises:
        ConfigError: the asked folder is not this command's, or nothing can be written there.
    """
    settings = settings_of(measurement)
    sizes = [len(batch.images) for batch in measurement.batches]

    def decide() -> dict[str, Any]:
        work = _choose(measurement, settings, sizes)
        return {"folder": str(work.folder), "todo": work.begin()}

    decision = agree(decide) if ranks.external else decide()
    todo = decision["todo"]
    if ranks.rank == 0 and len(todo) < len(sizes):
        done = len(sizes) - len(todo)
        print(f"going on after {done} of {len(sizes)} batches in {decision['folder']}")
    return Work(Path(decision["folder"]), settings=settings, sizes=sizes), todo


def _choose(measurement: Measurement, settings: dict[str, Any], sizes: list[int]) -> Work:
    """In the asked folder, or in the run's: the one that this command began and did not finish, or
    a new one."""
    cfg = measurement.cfg
    if cfg.output is not None:
        return Work(Path(cfg.output), settings=settings, sizes=sizes)
    parent, stem = _name(measurement)
    number = 1
    while True:
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        work = Work(folder, settings=settings, sizes=sizes)
        try:
            folder.mkdir(parents=True)  # whoever makes it has it
            return work
        except FileExistsError:
            if begun(folder) and not work.foreign():
                return work
        except OSError as error:
            raise config_error(
                f"{folder}: {error.strerror}", "a place for the report", "set output=..."
            ) from error
        number += 1


def _name(measurement: Measurement) -> tuple[Path, str]:
    """In the run's folder or, of a file of no run, beside the file; of one at an address, here."""
    opened, cfg = measurement.opened, measurement.cfg
    path, what = opened.path.resolve(), "-".join(cfg.inversion)
    if opened.images_seen is None:
        folder = Path(f"{path.stem}-evaluation")
        here = folder if is_address(cfg.checkpoint) else path.parent / folder
        return here, f"{cfg.split}-{what}"
    stem = f"{cfg.split}-{opened.images_seen / 1000:g}kimg-{what}"
    if is_address(cfg.checkpoint):
        run = cfg.checkpoint.rpartition("/checkpoints/")[0].rpartition("/")[2] or path.stem
        return Path("evaluation") / run, stem
    return path.parent.parent / "evaluation", stem


def settings_of(measurement: Measurement) -> dict[str, Any]:
    """All that the numbers depend on."""
    cfg = measurement.cfg
    asked = plain(cfg)
    dataset = plain(dataset_of(cfg, measurement.opened))["dataset"]
    return {
        "command": "evaluate.py",
        "checkpoint_sha256": sha256_file(measurement.opened.path),
        "generator_sha256": measurement.opened.generator.sha256,
        "dataset": {k: v for k, v in dataset.items() if k not in NOT_RESULTS},
        "images": measurement.total,
        "device": measurement.device.type,
        "precision": cfg.trainer.precision,
        **_edits_of(measurement),
        **_files_of(measurement),
        **{k: asked[k] for k in ("split", "batch_size", "pictures", "seed", "inversion", "metric")},
    }


def _edits_of(measurement: Measurement) -> dict[str, Any]:
    """What the strips depend on; nothing where there are none."""
    if not measurement.edits:
        return {}
    nodes = plain(measurement.cfg)["editing"]
    return {"editing": {n: [nodes[n], e.sha256] for n, e in measurement.edits.items()}}


def _files_of(measurement: Measurement) -> dict[str, Any]:
    """The files that metrics read; nothing where there are none."""
    files = {n: m.sha256 for n, m in measurement.metrics.items() if m.sha256 is not None}
    return {"metric_files": files} if files else {}


def facts_of(measurement: Measurement) -> dict[str, Any]:
    """What the report says about what was evaluated."""
    cfg = measurement.cfg
    opened, device = measurement.opened, measurement.device
    data, seen = plain(dataset_of(cfg, opened))["dataset"], opened.images_seen
    return {
        "checkpoint": str(cfg.checkpoint),
        "method": opened.kind,
        "kimg": None if seen is None else seen / 1000,
        "generator": opened.generator.source,
        "generator_sha256": opened.generator.sha256,
        "dataset": data.get("root") or data["_target_"].rsplit(".", 1)[-1],
        **{name: data[name] for name in ("shift", "angle") if name in data},
        "split": cfg.split,
        "batch_size": cfg.batch_size,
        "precision": cfg.trainer.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "ganinv": __version__,
        "torch": torch.__version__,
    }


def notes_of(measurement: Measurement) -> list[str]:
    """What of the columns the report does not have: identity, whether it applies, and how to get
    it."""
    if "identity" in measurement.metrics:
        return []
    data = plain(dataset_of(measurement.cfg, measurement.opened))["dataset"]
    if (data.get("regions") or {}).get("face"):
        names = ",".join([*measurement.metrics, "identity"])
        return [f"identity: not measured; metric=[{names}] adds it (ArcFace, of aligned faces; its "
                "weights: ganinv doctor)"]  # fmt: skip
    return ["identity: does not apply: ArcFace knows photos of aligned faces, and this dataset "
            "names no face (dataset.regions.face)"]  # fmt: skip


def join(work: Work, measurement: Measurement, ranks: Ranks) -> Result:
    """The result of all batches.

    Raises:
        RunError: a batch is not there.
    """
    parts: dict[str, list[Part]] = {name: [] for name in measurement.inversions}
    for number, part in enumerate(work.parts(PATIENCE if ranks.external else 0)):
        parts[measurement.batches[number].inversion].append(part)
    result = Result(facts_of(measurement), measurement.higher_is_better)
    for metric in measurement.metrics.values():
        result.protocol |= metric.protocol_at(measurement.data.image_size)
    result.notes = notes_of(measurement)
    for name, found in parts.items():
        result.rows.append(_row(name, found, measurement, work))
        skipped = [reason for _, known in found for reason in known["skipped"]]
        result.unreadable = list(dict.fromkeys([*result.unreadable, *skipped]))
    return result


def _row(name: str, parts: list[Part], measurement: Measurement, work: Work) -> Row:
    keys = [key for _, known in parts for key in known["keys"]]
    if not keys:
        given = f"no image of {measurement.cfg.split} can be read"
        raise config_error(given, "some images", "look at it with ganinv verify")
    full = [tensors for tensors, known in parts if known["keys"]]
    rows = {row: torch.cat([tensors[row] for tensors in full]) for row in full[0]}
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    details: dict[str, dict[str, float]] = {}
    for metric_name, metric in measurement.metrics.items():
        own = {r.partition("/")[2]: v for r, v in rows.items() if r.startswith(f"{metric_name}/")}
        values |= metric.compute(own)
        intervals |= metric.interval(own)
        details |= metric.details(own)
    pictures = measurement.pictures(work, name)
    first, worst = pictures.read()
    columns, curve = measurement.columns(rows), None
    if "loss" in rows:
        columns["steps"] = rows["steps"]
        curve = curve_of(rows["loss"], measurement.cfg.inversion[name].steps)
    columns["seconds"] = rows["seconds"]
    return Row(
        inversion=name,
        values=values,
        seconds_per_image=_seconds(parts),
        keys=keys,
        columns={column: value.double().tolist() for column, value in columns.items()},
        first=first,
        worst=worst,
        curve=curve,
        steps_per_image=None if curve is None else float(rows["steps"].double().mean()),
        failed=[key for _, known in parts for key in known.get("failed", [])],
        strips=read_strips(pictures.folder, measurement.edits),
        intervals=intervals,
        details=details,
    )


def _seconds(parts: list[Part]) -> float:
    """Mean over the images of warm batches, of all where there are none."""
    timed: list[Tensor] = [t["seconds"] for t, known in parts if known["warm"] and known["keys"]]
    timed = timed or [tensors["seconds"] for tensors, known in parts if known["keys"]]
    return float(torch.cat(timed).mean())


def write(result: Result, folder: Path) -> None:
    """images.csv, a grid for each inversion method, report.html, metrics.json; then the table.

    Raises:
        RunError: the disk does not take them.
    """
    title = f"{result.facts['method']} on {result.facts['split']}"
    grids = [folder / f"grid-{row.inversion}.png" for row in result.rows]
    strips = {
        folder / f"edit-{row.inversion}-{s.edit}.png": s for row in result.rows for s in row.strips
    }
    with disk_errors(folder, GO_ON):
        write_atomic(folder / "images.csv", result.csv().encode())
        for row, path in zip(result.rows, grids, strict=True):
            write_atomic(path, report.png(report.grid(row.first)))
        for path, found in strips.items():
            write_atomic(path, report.png(strip.strip(found.images, found.labels)))
        write_atomic(folder / "report.html", report.page(result, title).encode())
        write_atomic(folder / RESULT, result.json().encode())
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    table.show(result, console)
    console.print(f"{result.images} images of {result.facts['split']}")
    told = [*table.protocols(result), *table.details(result), *result.notes]
    for sentence in [*told, *table.failures(result)]:
        print(sentence)
    if result.unreadable:
        print(f"could not be read: {len(result.unreadable)} ({RESULT} lists all)")
        print("\n".join(f"  {reason}" for reason in result.unreadable[:LISTED]))
    for path in [*grids, *strips, folder / "report.html"]:
        print(path)
