"""The run's folder: named once for all ranks, never overwritten, found again to resume."""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganinv.core.command import entry, override
from ganinv.core.errors import ConfigError, WeightsMissing, explain
from ganinv.core.safe.io import write_atomic
from ganinv.run import afar
from ganinv.run.checkpoint import Held, hold, newest_sound
from ganinv.run.disk import check_writable
from ganinv.run.launch import RankInfo, agree, rank_info
from ganinv.run.ledger import RANKING
from ganinv.run.mirror import uploading
from ganinv.run.naming import check_not_in_use, in_use, is_named, new_name
from ganinv.run.status import beginning, read_state, update_state
from ganinv.run.storage.base import Storage, is_address
from ganinv.run.storage.fetch import fetched
from ganinv.run.storage.open import open_storage

ENVIRONMENT = "GANINV_RUN_DIR"  # the same as run_dir=..., for job scripts


@dataclass
class Run:
    """Where a run lives and what it starts from."""

    folder: Path  # of this machine, where it is written
    resume: Path | None
    wandb_id: str
    config: dict[str, Any]  # resolved, plain Python
    held: Held | None = None  # what is resumed, on rank 0, which alone reads it
    storage: Storage | None = None  # where it is kept, if that is elsewhere

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / "checkpoints"

    def shown(self, name: str) -> str:
        """Where a file of it is found later: path or address."""
        return str(self.folder / name) if self.storage is None else self.storage.at(name)

    def best(self) -> Path:
        """The best checkpoint, or the last one where nothing was validated; fetched, if it is only
        where the run is kept."""
        if (self.checkpoints / "best.ckpt").is_file():
            return self.checkpoints / "best.ckpt"
        if self.storage is not None and (self.folder / RANKING).is_file():
            return fetched(self.storage.at("checkpoints/best.ckpt"))
        return self.checkpoints / "last.ckpt"


def open_run(cfg: DictConfig) -> Run:
    """Rank 0 decides the run's folder and what it resumes, and all ranks go by it; leaves nothing
    written; refuses to overwrite a run.

    Raises:
        ConfigError: run_dir holds another run and resume is not asked for, cannot be written, or a
            value is missing.
        WeightsMissing: resume names a checkpoint that is not there.
        WeightsError: no checkpoint of the run to be resumed is whole.
    """
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        key = sorted(missing)[0]
        raise ConfigError(explain(f"no value for {key}", "one", f"add {key}=... to the command"))
    read: list[Held] = []
    decision = agree(lambda: _with_id(_decide(cfg, rank_info(), read)))
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    resume, folder, storage = decision["resume"], Path(decision["folder"]), None
    if decision["address"] is not None:
        storage = open_storage(decision["address"], "runs")
        if resume is not None:
            place, asked = afar.Place(storage, folder), resume
            resume = agree(lambda: _restored(place, asked, read), "restored")["resume"]
    return Run(
        folder=folder,
        resume=None if resume is None else Path(resume),
        wandb_id=decision["wandb_id"],
        config=config,  # type: ignore[arg-type]
        held=read[0] if read else None,
        storage=storage,
    )


def _decide(cfg: DictConfig, here: RankInfo, read: list[Held]) -> dict[str, Any]:
    """Folder, address, checkpoint and W&B id of the run; the checkpoint is appended to `read`. A
    job that its launcher starts again goes on with its own run, whatever `resume` says."""
    given = os.environ.get(ENVIRONMENT) or cfg.run_dir
    first = given or (cfg.resume if is_address(cfg.resume) else cfg.runs)
    if is_address(first):
        return afar.decide(cfg, here, given)
    runs, resume = Path(cfg.runs), cfg.resume
    folder = None if given is None else Path(given)
    found: Held | None = None
    if here.restarts:
        folder = folder or _of_job(runs, here.job)
        found = None if folder is None else _newest(folder)
        if found is not None:
            _say(f"started again by {here.launcher} (restart {here.restarts})")
            resume = "auto"
    if resume == "auto":
        folder = folder or newest_unfinished(runs, cfg.name)
        if folder is not None:
            check_not_in_use(folder, read_state(folder))
            found = found or _newest(folder)
        resume = None if found is None else found.path
        words = f"continuing {folder} from {resume}"
        _say(f"resume=auto: {words if resume else 'nothing to resume, so this is a new run'}")
    elif resume is not None:
        resume = Path(resume)
        if not resume.is_file():
            raise WeightsMissing(
                explain(f"resume={resume}", "a checkpoint file", "pass a .ckpt or resume=auto")
            )
        folder = folder or resume.resolve().parent.parent
    folder = folder or _new_folder(runs, cfg.name)
    if (folder / "checkpoints").is_dir() and resume is None:
        raise ConfigError(
            explain(
                f"run_dir={folder}, which already holds checkpoints",
                "a new folder, or resume=auto",
                "choose one; nothing was overwritten",
            )
        )
    check_not_in_use(folder, read_state(folder))
    todo = "pass runs=... or run_dir=..., or make it writable"
    check_writable(folder, "the run's folder", todo)
    if resume is not None:
        read.append(found or hold(resume))
    return {
        "folder": str(folder),
        "address": None,
        "resume": None if resume is None else str(resume),
        "wandb_id": read_state(folder).get("wandb_id"),
    }


def _restored(place: afar.Place, resume: str, read: list[Held]) -> dict[str, Any]:
    """Where a checkpoint that was kept elsewhere is now; it is appended to `read`."""
    found = afar.restore(place, resume)
    if found is not None:
        read.append(hold(found))
    return {"resume": None if found is None else str(found)}


def _with_id(decision: dict[str, Any]) -> dict[str, Any]:
    """A new run's W&B id is the sweep's, or its own."""
    return decision | {"wandb_id": decision["wandb_id"] or _given_id() or secrets.token_hex(6)}


def _given_id() -> str | None:
    """The id that a W&B sweep's agent gives a run."""
    return os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None


def _newest(folder: Path) -> Held | None:
    """The newest checkpoint of a run that is whole; tells of those that are not."""
    found, damaged = newest_sound(folder / "checkpoints")
    for path, reason in damaged:
        instead = f"using {found.path.name} instead" if found else "and there is no other"
        _say(f"{path} is damaged ({reason}): {instead}")
    return found


def newest_unfinished(runs: Path, name: str) -> Path | None:
    """The newest folder `<time>-<name>` in `runs` that has checkpoints, did not finish, and in
    which no other job trains now."""
    found = [
        folder
        for folder in runs.glob("*")
        if is_named(folder.name, name)
        and any((folder / "checkpoints").glob("*.ckpt"))
        and not (folder / "finished").exists()
        and read_state(folder).get("name", name) == name
    ]
    for folder in sorted(found, key=lambda folder: folder.name, reverse=True):
        if not in_use(read_state(folder)):
            return folder
        _say(f"resume=auto: {folder} is left alone, another run is under way there")
    return None


def _of_job(runs: Path, job: str) -> Path | None:
    """The newest folder in `runs` that this very job began."""
    found = [path.parent for path in runs.glob("*/state.json") if read_state(path.parent)]
    mine = [folder for folder in found if read_state(folder).get("job") == job]
    return max(mine, key=lambda folder: folder.name, default=None)


def _new_folder(runs: Path, name: str) -> Path:
    """A new folder, with a number behind its name when that is taken; removed at the end of a
    process that wrote nothing to it."""
    stem = new_name(name)
    numbered = (f"_{again}" if again > 1 else "" for again in count(1))
    for number in numbered:
        folder = runs / f"{stem}{number}"
        try:
            folder.mkdir(parents=True)  # of several that ask for it one gets it
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(folder, f"{error.filename}: {error.strerror}") from error
        atexit.register(_remove_if_empty, folder)
        return folder
    raise AssertionError


def _remove_if_empty(folder: Path) -> None:
    """A run that is refused leaves nothing."""
    with suppress(OSError):
        folder.rmdir()


def _unwritable(folder: Path, reason: str) -> ConfigError:
    return ConfigError(
        explain(
            f"the run's folder {folder} cannot be written: {reason}",
            "a place that takes files",
            "pass runs=... or run_dir=..., or make it writable",
        )
    )


@contextmanager
def under_way(run: Run, method: Any) -> Iterator[None]:
    """The run begins, now that nothing can be refused any more, and what it writes in this block is
    copied to where it is kept. A SLURM job whose time is up goes back into the queue when all of it
    is there: SLURM ends such a job at once.

    Raises:
        ConfigError: its folder cannot be written, or another run is under way in it.
        RunError: it could not be copied.
    """
    with uploading(run.folder, run.storage):
        begin(run)
        yield
    ours = rank_info().rank == 0 and "SLURM_JOB_ID" in os.environ
    if ours and method.interrupted == signal.SIGUSR1:
        _requeue()


def begin(run: Run) -> None:
    """Make the run's folder on rank 0, now that nothing can be refused any more, with its resolved
    config; a run resumed with another config has both.

    Raises:
        ConfigError: it cannot be written, or another run is under way in it.
    """
    if rank_info().rank > 0:
        return
    check_not_in_use(run.folder, read_state(run.folder))
    text = OmegaConf.to_yaml(OmegaConf.create(run.config)).encode()
    path = run.folder / "config.yaml"
    if path.is_file() and path.read_bytes() != text:
        path = run.folder / f"config-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
    try:
        for unfinished in run.checkpoints.glob(".*.ckpt*"):  # of a run killed while it wrote
            unfinished.unlink()
        write_atomic(path, text)
        (run.folder / "finished").unlink(missing_ok=True)  # a longer run goes on after its end
        length = float(run.config["trainer"]["max_kimg"])
        known = beginning(rank_info().job, run.config["name"], run.wandb_id, length)
        address = {} if run.storage is None else {"address": run.storage.address}
        update_state(run.folder, **known, **address, upload=None)
    except OSError as error:
        raise _unwritable(run.folder, str(error)) from error


def _say(text: str) -> None:
    if rank_info().rank == 0:
        print(text, flush=True)


def finish(run: Run, trainer: Any, method: Any) -> None:
    """Mark a run that reached its end, and say where its results are and what to do next. Only rank
    0 does anything."""
    if rank_info().rank > 0:
        return
    if method.interrupted:
        last = run.shown("checkpoints/last.ckpt")
        _say(
            f"\nInterrupted at {method.images_seen / 1000:.2f} kimg; saved {last}\n"
            f"Continue:  {entry('train')} <same options> {override('resume', last)}"
        )
        return
    write_atomic(run.folder / "finished", b"")
    best = run.checkpoints / "best.ckpt"
    local = best if best.exists() else run.checkpoints / "last.ckpt"
    is_best = best.exists() or (run.folder / RANKING).is_file()
    shown = run.shown(f"checkpoints/{'best' if is_best else 'last'}.ckpt")
    grids = sorted((run.folder / "grids").glob("*.png"))
    lines = [f"\nDone: {method.images_seen / 1000:.2f} kimg in {run.shown('').rstrip('/')}"]
    lines += [f"Checkpoint:  {shown}"]
    lines += [f"Grid:        {run.shown(f'grids/{grids[-1].name}')}"] if grids else []
    for line in method.next_commands(str(local)):
        lines += [f"Next:        {line.replace(str(local), shown)}"]
    _say("\n".join(lines))


def _requeue() -> None:
    """SLURM's way to say: run this job again."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"]
    job = job if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if done.returncode == 0:
        _say(f"SLURM will start job {job} again; it goes on from there")
    else:
        _say(f"scontrol requeue {job} failed ({done.stderr.strip()}): submit the job again")
