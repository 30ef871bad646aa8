"""Where the numbers go: a CSV file always, Weights & Biases and TensorBoard as asked for."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from ganinv.core.safe.io import write_atomic
from ganinv.method.base import Method
from ganinv.run.launch import rank_info


class CSVTable(Logger):
    """`metrics.csv`, a line an entry, continued by a resumed run.

    Lightning's own CSVLogger deletes what an earlier process of the run has written. A run that was
    killed writes the entries since its last checkpoint again: the same numbers, on new lines.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Lightning asks for a name; the run's folder already has it."""
        return ""

    @property
    def version(self) -> str:
        """Nothing."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to write: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line; a name that is new becomes a column."""
        row = {"step": step, **metrics}
        if self.columns is None:
            self.columns = self._written()
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            self._add_columns()
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _written(self) -> list[str]:
        if not self.path.is_file():
            return []
        with open(self.path, newline="") as file:
            return next(csv.reader(file), [])

    def _add_columns(self) -> None:
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            with open(self.path, newline="") as file:
                rows = list(csv.DictReader(file))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns or [])
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, buffer.getvalue().encode())


def logged_in() -> bool:
    """Whether W&B finds an API key in the environment or in the netrc file."""
    import wandb
    from wandb.sdk.lib import wbauth

    host = os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url
    return bool(os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=host))


class WandbRun(WandbLogger):
    """Lightning's logger; further arguments are its own.

    Args:
        keeps_models: whether the best checkpoint and its bundle become artifacts.
    """

    def __init__(self, *, keeps_models: bool, **rest: Any) -> None:
        super().__init__(**rest)
        self.keeps_models = keeps_models


@contextmanager
def ended(loggers: list[Logger], method: Method) -> Iterator[None]:
    """The W&B runs of the loggers end with this block, and not with the process: in a multirun the
    next training would go on in them.

    Args:
        loggers: of the training.
        method: that is trained, and knows whether a signal ended it.
    """
    code = 1
    try:
        yield
        code = 128 + method.interrupted if method.interrupted else 0
    finally:
        for logger in loggers:
            if isinstance(logger, WandbRun) and logger._experiment is not None:
                logger._experiment.finish(code)


def _tensorboard(run_dir: Path, hyperparameters: dict[str, Any]) -> TensorBoardLogger:
    """Its files go to `run_dir/tensorboard`; a resumed run adds one."""
    logger = TensorBoardLogger(save_dir=run_dir, name="", version="tensorboard")
    if rank_info().rank == 0:
        text = OmegaConf.to_yaml(OmegaConf.create(hyperparameters))
        logger.experiment.add_text("config", f"```yaml\n{text}```")
    return logger


def build_loggers(
    *,
    run_dir: Path,
    run_id: str,
    hyperparameters: dict[str, Any],
    job_type: str,
    project: str,
    entity: str | None,
    offline: bool | None,
    wandb: bool,
    artifacts: bool | None,
    tensorboard: bool,
) -> list[Logger]:
    """The loggers of one run; all step by images seen.

    Args:
        run_dir: `metrics.csv`, `wandb/` and `tensorboard/` are written here; its name is the run's
            name.
        run_id: W&B's id, kept in the run's folder, so that a resumed run continues the same W&B
            run.
        hyperparameters: the resolved configuration, shown by W&B.
        job_type: train or evaluate, by which W&B's tables sort runs.
        project: W&B project.
        entity: W&B team, None for the user's own.
        offline: None chooses offline when there is no login, and says so.
        wandb: False leaves W&B out.
        artifacts: whether W&B keeps the best checkpoint and its bundle; None: when online, for an
            offline run keeps a second copy of them until it is uploaded.
        tensorboard: True writes TensorBoard's files, too.
    """
    loggers: list[Logger] = [CSVTable(run_dir / "metrics.csv")]
    if tensorboard:
        loggers.append(_tensorboard(run_dir, hyperparameters))
    if not wandb:
        return loggers
    if offline is None:
        offline = not logged_in()
        if offline:
            _say(
                "W&B: not logged in, so this run is logged offline. To upload it later: "
                f"wandb sync {run_dir}/wandb/offline-run-*"
            )
    if offline:
        os.environ.setdefault("WANDB_SILENT", "true")  # it would say again what was just said
    logger = WandbRun(
        keeps_models=not offline if artifacts is None else artifacts,
        project=project,
        entity=entity,
        name=run_dir.name,
        id=run_id,
        save_dir=run_dir,
        offline=offline,
        resume=None if offline else "allow",
        config=hyperparameters,
        job_type=job_type,
    )
    logger._wandb_init.pop("anonymous", None)  # Lightning passes it, W&B warns of it
    loggers.append(logger)
    return loggers


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
