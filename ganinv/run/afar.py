"""A run whose folder is an address: named, found, and made whole on this machine to go on with.

It is written to a folder of this machine first, `scratch/<scheme>/<bucket>/<prefix>/<name>`, and
copied from there (`mirror.py`). What is read from there is as untrusted as any file: only names
that a run has are fetched, each up to a size, and a checkpoint is compared with its checksums.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ganinv.core.errors import ConfigError, RunError, WeightsMissing, explain
from ganinv.run.checkpoint import LAST, PREVIOUS, damage, newest_sound
from ganinv.run.disk import check_writable
from ganinv.run.launch import RankInfo, rank_info
from ganinv.run.ledger import BEST, RANKING, Arrived, Ledger, arrived
from ganinv.run.mirror import ALIVE, owner_of, refusal
from ganinv.run.naming import check_not_in_use, in_use, is_named, new_name
from ganinv.run.status import MOST_BYTES, NAME, parse_state, read_state
from ganinv.run.storage.base import Entry, NotThere, Storage, StorageFault, is_address, patiently
from ganinv.run.storage.fetch import cache_folder, check_room, fetched
from ganinv.run.storage.open import open_storage

SMALL = {  # what a run goes on with, beside a checkpoint: name -> most bytes of it
    NAME: MOST_BYTES,
    "config.yaml": 1 << 20,
    "metrics.csv": 1 << 30,
    "logs/rank0.log": 1 << 30,
    RANKING: 1 << 20,
}
RUN = re.compile(r"[^:/]+://.*[^:/].*/[^/]+")
CHECKPOINT = re.compile(r"checkpoints/(last|previous|best|best-\d{1,15})\.ckpt")


@dataclass(frozen=True)
class Place:
    """Where a run is kept and where it is written.

    Attributes:
        storage: its folder at the address.
        folder: the one of this machine.
    """

    storage: Storage
    folder: Path


def place_of(address: str, scratch: str | None) -> Place:
    """Of a run's address.

    Args:
        address: `s3://bucket/runs/NAME`.
        scratch: the folder in which such runs are written, None for `$GANINV_CACHE/runs`.
    """
    scheme, _, rest = address.rstrip("/").partition("://")
    above = cache_folder("runs") if scratch is None else Path(scratch).expanduser()
    parts = [part for part in rest.split("/") if part]
    return Place(open_storage(address.rstrip("/"), "runs"), above.joinpath(scheme, *parts))


def decide(cfg: DictConfig, here: RankInfo, given: str | None) -> dict[str, Any]:
    """Rank 0's decision: folder, address, checkpoint and W&B id, as `folder.open_run` hands it on.

    Args:
        cfg: the config.
        here: this rank.
        given: the run's own folder or address, None for a new name in `cfg.runs`.

    Raises:
        ConfigError: the place cannot be used, another run is there or is under way there.
        WeightsMissing: resume names a checkpoint that is not there.
    """
    if given is None and is_address(cfg.resume):
        given = _run_of(cfg.resume)
    address = given or cfg.runs
    try:
        return _decide(cfg, here, *_split(given, cfg.runs))
    except StorageFault as error:
        raise refusal(address, error) from error


def _split(given: str | None, runs: str) -> tuple[str, str]:
    """The address of all runs, and the name of this one, where it is given."""
    if given is None:
        return runs.rstrip("/"), ""
    if not RUN.fullmatch(given.rstrip("/")):
        expected = "the address of a run's own folder: s3://bucket/runs/NAME"
        raise ConfigError(explain(f"run_dir={given}", expected, "correct it"))
    above, _, name = given.rstrip("/").rpartition("/")
    return above, name


def _run_of(checkpoint: str) -> str:
    """The run's address of a checkpoint's."""
    run, _, name = checkpoint.rpartition("/checkpoints/")
    if not run or "/" in name:
        raise ConfigError(
            explain(f"resume={checkpoint}", "a checkpoint in a run's folder: "
                    "s3://bucket/runs/NAME/checkpoints/last.ckpt", "correct it")
        )  # fmt: skip
    return run


def _decide(cfg: DictConfig, here: RankInfo, runs: str, name: str) -> dict[str, Any]:
    storage, resume, named = open_storage(runs, "runs"), cfg.resume, bool(name)
    if here.restarts and (name := name or _of_job(storage, here.job)):
        if any(map(CHECKPOINT.fullmatch, _files(storage.inside(name), "checkpoints/"))):
            _say(f"started again by {here.launcher} (restart {here.restarts})")
            resume = "auto"
    if resume == "auto":
        name = name or newest_unfinished(storage, cfg.name) or ""
    elif resume is not None and not named:
        raise ConfigError(
            explain(
                f"resume={resume} with runs={runs}",
                "a checkpoint of a run that is kept there, or a name there for this one to go on",
                f"add run_dir={runs}/NAME, or leave runs out",
            )
        )
    name = name or f"{new_name(cfg.name)}_{secrets.randbelow(90_000) + 10_000}"
    place = place_of(f"{runs}/{name}", cfg.scratch)
    check_not_in_use(place.storage.address, _owner(place.storage), ALIVE)
    check_not_in_use(place.folder, read_state(place.folder))
    held = any(map(CHECKPOINT.fullmatch, _files(place.storage, "checkpoints/")))
    if resume is None:
        _check_new(place, held)
    check_writable_there(place.storage)
    check_writable(place.folder, "the scratch folder", "pass scratch=..., or make it writable")
    if resume == "auto":
        goes_on = held or (place.folder / "checkpoints" / LAST).is_file()
        found = f"continuing {place.storage.address}"
        _say(f"resume=auto: {found if goes_on else 'nothing to resume, so this is a new run'}")
    _say(f"{place.storage.address}: written to {place.folder} first")
    state = _state(place.storage, NAME) or read_state(place.folder)
    return {
        "folder": str(place.folder),
        "address": place.storage.address,
        "resume": resume,
        "wandb_id": state.get("wandb_id"),
    }


def _check_new(place: Place, held: bool) -> None:
    """Refuse to begin where a run is, there or here."""
    given = None
    if held:
        given = f"run_dir={place.storage.address}, which already holds checkpoints"
    elif (place.folder / "checkpoints").is_dir():
        given = f"{place.folder}, where {place.storage.address} is written first and which holds " \
                "the checkpoints of another run"  # fmt: skip
    if given is not None:
        raise ConfigError(
            explain(given, "a new folder, or resume=auto", "choose one; nothing was overwritten")
        )


def check_writable_there(storage: Storage) -> None:
    """Write a small file and remove it.

    Raises:
        ConfigError: nothing can be written there: no keys, no such bucket, no rights.
    """
    name = f"ganinv-{secrets.token_hex(4)}.try"
    try:
        patiently(lambda: storage.write(name, b"ganinv"), storage.address)
        patiently(lambda: storage.remove(name), storage.address)
    except StorageFault as error:
        raise refusal(storage.address, error) from error


def newest_unfinished(runs: Storage, name: str) -> str | None:
    """The newest run of this name in there that has checkpoints, did not finish, and in which no
    other job trains now."""
    inside: dict[str, list[str]] = {}
    for file in _files(runs, ""):
        folder, _, below = file.partition("/")
        inside.setdefault(folder, []).append(below)
    for folder in sorted(inside, reverse=True):
        whole = any(map(CHECKPOINT.fullmatch, inside[folder]))
        if not whole or not is_named(folder, name) or "finished" in inside[folder]:
            continue
        if _state(runs, f"{folder}/{NAME}").get("name", name) != name:
            continue
        if not in_use(_owner(runs.inside(folder)), ALIVE):
            return folder
        _say(f"resume=auto: {runs.at(folder)} is left alone, another run is under way there")
    return None


def _of_job(runs: Storage, job: str) -> str:
    """The newest run in there that this very job began."""
    names = [
        file for file in _files(runs, "") if file.endswith(f"/{NAME}") and file.count("/") == 1
    ]
    mine = [name for name in names if _state(runs, name).get("job") == job]
    return max(mine, default="").partition("/")[0]


def _files(storage: Storage, under: str) -> dict[str, Entry]:
    return patiently(lambda: storage.files(under), storage.address)


def _owner(storage: Storage) -> dict[str, Any]:
    return patiently(lambda: owner_of(storage), storage.address)


def _state(storage: Storage, name: str) -> dict[str, Any]:
    try:
        return parse_state(patiently(lambda: storage.read(name, MOST_BYTES), storage.at(name)))[0]
    except NotThere:
        return {}


# ------------------------------------------------------------------ on this machine


def restore(place: Place, resume: str) -> Path | None:
    """Make a run whole on this machine, and find what it goes on from; rank 0 calls this.

    What this machine wrote last and could not copy any more counts, if nobody else has gone on
    since (and all ranks are of this machine); else it is put aside.

    Args:
        place: the run.
        resume: auto, or a checkpoint's path or address.

    Raises:
        RunError: the store does not answer.
        WeightsMissing: no such checkpoint.
    """
    try:
        with _locked(place.folder):
            found = _restore(place, resume == "auto")
        if resume == "auto":
            return found
        if is_address(resume):
            return fetched(resume)
    except StorageFault as error:
        todo = "start again when it answers; nothing there was changed"
        given = f"{place.storage.address} cannot be read: {error}"
        raise RunError(explain(given, "a store that answers", todo)) from error
    if not Path(resume).is_file():
        raise WeightsMissing(
            explain(f"resume={resume}", "a checkpoint file", "pass a .ckpt or resume=auto")
        )
    return Path(resume)


def _restore(place: Place, wanted: bool) -> Path | None:
    """All but what is not `wanted`: the newest checkpoint."""
    ledger, there = Ledger(place.folder), _files(place.storage, "")
    last = f"checkpoints/{LAST}"
    ours = rank_info().nodes == 1 and (
        ledger[last].mark == there[last].mark if {last} <= ledger.keys() & there.keys()
        else last not in ledger and last not in there
    )  # fmt: skip
    for name in [n for n, a in ledger.items() if n not in there or there[n].mark != a.mark]:
        del ledger[name]  # removed or written there since: no longer what arrived
    if not ours:
        _put_aside(place.folder, ledger)
    for name, most in SMALL.items():
        if name in there and not (ours and (place.folder / name).is_file()):
            _fetch_small(place, ledger, name, most)
    for name in filter(CHECKPOINT.fullmatch, there):
        ledger.setdefault(name, Arrived(there[name].bytes, 0, 0, there[name].mark))
    ledger.save()
    if not wanted:
        return None
    if ours:
        found, damaged = newest_sound(place.folder / "checkpoints")
        for path, reason in damaged:
            _say(f"{path} is damaged ({reason}): looking for another")
        if found is not None and found.path.name in (LAST, PREVIOUS):
            return found.path
    return _newest_there(place, ledger, there)


def _newest_there(place: Place, ledger: Ledger, there: dict[str, Entry]) -> Path | None:
    """Fetch the newest checkpoint that is whole."""
    best = sorted(filter(BEST.fullmatch, there), reverse=True)
    for name in [f"checkpoints/{LAST}", f"checkpoints/{PREVIOUS}", *best]:
        if name not in there:
            continue
        path, address = place.folder / name, place.storage.at(name)
        if ledger.holds(name) and damage(path) is None:
            return path
        check_room(path, there[name].bytes, address)
        _say(f"fetching {address} ({there[name].bytes / 2**20:.1f} MiB)")
        entry = patiently(partial(place.storage.download, name, path), address)
        if (fault := damage(path)) is None:
            ledger[name] = arrived(path.stat(), entry.mark)
            ledger.save()
            return path
        path.unlink()
        _say(f"{address} is damaged ({fault}): looking for another")
    return None


def _fetch_small(place: Place, ledger: Ledger, name: str, most: int) -> None:
    """A file that the run goes on with, such as it is there."""
    path, address = place.folder / name, place.storage.at(name)
    entry = patiently(partial(place.storage.download, name, path, most), address)
    ledger[name] = arrived(path.stat(), entry.mark)


def _put_aside(folder: Path, ledger: Ledger) -> None:
    """Checkpoints of this machine that have not arrived, and that another one's replace."""
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        if ledger.holds(f"checkpoints/{path.name}"):
            path.unlink()
            continue
        kept = folder / f"not-copied-{time.strftime('%Y%m%d-%H%M%S')}" / path.name
        kept.parent.mkdir(exist_ok=True)
        shutil.move(path, kept)
        _say(f"{path} was never copied, and another machine has gone on since: kept as {kept}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    if rank_info().rank == 0:
        print(text, flush=True)
