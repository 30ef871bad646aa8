"""The run's folder: named once for all ranks, never overwritten, found again to resume."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from ganinv.core.errors import ConfigError, WeightsMissing, explain
from ganinv.core.io import write_atomic

ENVIRONMENT = "GANINV_RUN_DIR"  # set by rank 0 before it starts the others


@dataclass
class Run:
    """Where a run lives and what it starts from."""

    folder: Path
    resume: Path | None
    config: dict[str, Any]  # resolved, plain Python

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / "checkpoints"


def open_run(cfg: DictConfig) -> Run:
    """Decide the run's folder and what it resumes; write nothing; refuse to overwrite a run.

    Raises:
        ConfigError: run_dir holds another run and resume is not asked for, or a value is missing.
        WeightsMissing: resume names a checkpoint that is not there.
    """
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        key = sorted(missing)[0]
        raise ConfigError(explain(f"no value for {key}", "one", f"add {key}=... to the command"))
    resume, folder = cfg.resume, _given_folder(cfg)
    if resume == "auto":
        folder = folder or newest_unfinished(Path(cfg.runs), cfg.name)
        last = None if folder is None else folder / "checkpoints" / "last.ckpt"
        resume = last if last is not None and last.is_file() else None
        found = f"continuing {folder}" if resume else "nothing to resume, so this is a new run"
        _say(f"resume=auto: {found}")
    elif resume is not None:
        resume = Path(resume)
        if not resume.is_file():
            raise WeightsMissing(
                explain(f"resume={resume}", "a checkpoint file", "pass a .ckpt or resume=auto")
            )
        folder = folder or resume.resolve().parent.parent
    folder = folder or _new_folder(Path(cfg.runs), cfg.name)
    if (folder / "checkpoints").is_dir() and resume is None and ENVIRONMENT not in os.environ:
        raise ConfigError(
            explain(
                f"run_dir={folder}, which already holds checkpoints",
                "a new folder, or resume=auto",
                "choose one; nothing was overwritten",
            )
        )
    os.environ[ENVIRONMENT] = str(folder)
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return Run(folder, resume, config)  # type: ignore[arg-type]


def newest_unfinished(runs: Path, name: str) -> Path | None:
    """The newest folder `<time>-<name>` in `runs` that has a last.ckpt and did not finish."""
    pattern = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(name)}(-\w+)?")
    found = [
        folder
        for folder in runs.glob("*")
        if pattern.fullmatch(folder.name)
        and (folder / "checkpoints" / "last.ckpt").is_file()
        and not (folder / "finished").exists()
    ]
    return max(found, key=lambda folder: folder.name, default=None)


def _given_folder(cfg: DictConfig) -> Path | None:
    given = os.environ.get(ENVIRONMENT) or cfg.run_dir
    return None if given is None else Path(given)


def _new_folder(runs: Path, name: str) -> Path:
    """Ranks that were started from outside share a launcher's id; without one they must be told."""
    shared = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
    external = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1))) > 1
    if external and shared in (None, "none"):
        raise ConfigError(
            explain(
                "several ranks started from outside without a common run folder",
                "one folder for all ranks",
                f"pass run_dir=..., or export {ENVIRONMENT} before the launch",
            )
        )
    if external:
        return runs / f"{shared}-{name}"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    hydra = HydraConfig.get()
    suffix = f"-{hydra.job.num}" if hydra.mode == RunMode.MULTIRUN else ""
    return runs / f"{stamp}-{name}{suffix}"


@rank_zero_only
def begin(run: Run) -> None:
    """Make the run's folder, now that nothing can be refused any more, with its resolved config; a
    run resumed with another config has both."""
    text = OmegaConf.to_yaml(OmegaConf.create(run.config)).encode()
    path = run.folder / "config.yaml"
    if path.is_file() and path.read_bytes() != text:
        path = run.folder / f"config-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
    write_atomic(path, text)


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


@rank_zero_only
def finish(run: Run, trainer: Any, method: Any) -> None:
    """Mark a run that reached its end, and say where its results are and what to do next."""
    last = run.checkpoints / "last.ckpt"
    if method.interrupted:
        _say(
            f"\nInterrupted at {method.images_seen / 1000:.2f} kimg; saved {last}\n"
            f"Continue:  python train.py <same options> resume={last}"
        )
        return
    write_atomic(run.folder / "finished", b"")
    best = run.checkpoints / "best.ckpt"
    grids = sorted((run.folder / "grids").glob("*.png"))
    lines = [f"\nDone: {method.images_seen / 1000:.2f} kimg in {run.folder}"]
    shown = best if best.exists() else last
    lines += [f"Checkpoint:  {shown}"]
    lines += [f"Grid:        {grids[-1]}"] if grids else []
    lines += [f"Next:        {line}" for line in method.next_commands(str(shown))]
    _say("\n".join(lines))
