"""Where the numbers go: a CSV file always, Weights & Biases unless switched off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only


def logged_in() -> bool:
    """Whether W&B finds an API key in the environment or in the netrc file."""
    import wandb
    from wandb.sdk.lib import wbauth

    host = os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url
    return bool(os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=host))


def build_loggers(
    *,
    run_dir: Path,
    hyperparameters: dict[str, Any],
    project: str,
    entity: str | None,
    offline: bool | None,
    wandb: bool,
) -> list[Logger]:
    """The loggers of one run; all step by images seen.

    Args:
        run_dir: `metrics.csv` and `wandb/` are written here; its name is the run's name and id, so
            a resumed run continues the same W&B run.
        hyperparameters: the resolved configuration, shown by W&B.
        project: W&B project.
        entity: W&B team, None for the user's own.
        offline: None chooses offline when there is no login, and says so.
        wandb: False leaves W&B out.
    """
    loggers: list[Logger] = [CSVLogger(run_dir, name="", version="")]
    if not wandb:
        return loggers
    if offline is None:
        offline = not logged_in()
        if offline:
            _say(
                "W&B: not logged in, so this run is logged offline. To upload it later: "
                f"wandb sync {run_dir}/wandb/offline-run-*"
            )
    logger = WandbLogger(
        project=project,
        entity=entity,
        name=run_dir.name,
        id=run_dir.name[:64],
        save_dir=run_dir,
        offline=offline,
        resume=None if offline else "allow",
        config=hyperparameters,
    )
    loggers.append(logger)
    return loggers


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
