"""Names of runs, `<time>-<name>`, and whether another run is under way under one."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from ganinv.core.errors import ConfigError, explain
from ganinv.run.launch import rank_info
from ganinv.run.status import is_there

ALIVE = 30.0  # seconds since the last heartbeat of a run that cannot be seen from here
HERE = 3600.0  # the same where its process is seen: a validation may be long, a number used again


def new_name(name: str) -> str:
    """`<time>-<name>`, behind it the number in a multirun and SLURM's of the job."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    hydra = HydraConfig.get()
    numbers = [str(hydra.job.num)] if hydra.mode == RunMode.MULTIRUN else []
    numbers += [f"j{job}"] if (job := os.environ.get("SLURM_JOB_ID")) else []
    suffix = f"-{'_'.join(numbers)}" if numbers else ""
    return f"{stamp}-{name}{suffix}"


def is_named(folder: str, name: str) -> bool:
    """Whether a folder's name is one of `new_name(name)`, whatever stands behind."""
    return re.fullmatch(rf"\d{{8}}-\d{{6}}-{re.escape(name)}(-\w+)?(_\d+)?", folder) is not None


def in_use(other: dict[str, Any], alive: float = ALIVE) -> bool:
    """Whether another job than this one trains in the folder of this state, as far as can be seen
    from here.

    Args:
        other: the state.
        alive: seconds since the last heartbeat of one that cannot be seen.
    """
    known = {"job", "time", "pid", "processes"} <= set(other)
    if other.get("state") not in ("starting", "running") or not known:
        return False
    if other["job"] == rank_info().job:
        return False
    age = time.time() - other["time"]
    there = is_there(other["pid"], other["processes"], other.get("born"))
    return age < alive if there is None else there and age < HERE


def check_not_in_use(place: object, other: dict[str, Any], alive: float = ALIVE) -> None:
    """Two runs in one folder would overwrite each other: one that is resumed while it still runs,
    or two that were started in one second and chose one name.

    Args:
        place: the folder.
        other: its state.
        alive: as for `in_use`.

    Raises:
        ConfigError: another run is under way there.
    """
    if in_use(other, alive):
        raise ConfigError(
            explain(
                f"{place}, where another run ({other['job']}, process {other['pid']} on "
                f"{other.get('host', 'another machine')}) is under way",
                "a folder for each run",
                "stop that one first, pass run_dir=..., or, if it died elsewhere, start "
                f"again in {alive:.0f} s; nothing was overwritten",
            )
        )
