"""What a W&B run read and what it made, as artifacts: its lineage.

It reads the images (`dataset-*`, known by the sha256 of their indexes, which hold those of all
tars) and the generator (`generator-*`, by its file's sha256). Both artifacts hold a JSON file that
says so, not the images or weights themselves. It makes `NAME-checkpoint` (the best one, with the
config) and `NAME-bundle`.

Offline, all this is in the run's file and becomes lineage by `wandb sync`: whether it is linked
then, only a server can show.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from ganinv.core.safe.io import sha256_file
from ganinv.dataset.module import ShardData
from ganinv.trainer.loggers import WandbRun

if TYPE_CHECKING:
    import wandb  # where it is used only: a run without it need not wait a second for it

SPLITS = ("train", "val")
log = logging.getLogger(__name__)


def facts_of_dataset(data: Any) -> dict[str, Any] | None:
    """Where the images are and what identifies them; None for images that G draws."""
    if not isinstance(data, ShardData):
        return None
    found = {split: data.open(split) for split in SPLITS}
    return {
        "root": data.address or str(data.root),
        "image_size": list(data.image_size),
        "images": {split: len(index) for split, index in found.items()},
        "index_sha256": {s: sha256_file(index.folder / "index.json") for s, index in found.items()},
    }


def facts_of_generator(generator: Any) -> dict[str, Any] | None:
    """Where G is from and its sha256; None for one that the run trains."""
    digest = getattr(generator, "sha256", None)
    if digest is None:
        return None
    return {
        "source": str(generator.source),
        "sha256": digest,
        "kind": type(generator).__name__,
        "resolution": generator.resolution,
    }


class Lineage(pl.Callback):
    """Tells W&B what a run reads, once its images are there."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The dataset, and the generator where it is not what is trained."""
        runs = _runs(trainer.loggers) if trainer.is_global_zero else []
        if not runs:
            return
        found = {
            "dataset": facts_of_dataset(trainer.datamodule),  # type: ignore[attr-defined]
            "generator": facts_of_generator(pl_module.G),
        }
        for kind, facts in found.items():
            if facts is not None:
                name = Path(facts.get("root") or facts["source"]).name
                for run in runs:
                    _use(run, described(f"{kind}-{name}", kind, facts))


@rank_zero_only
def log_outputs(
    loggers: list[Logger], name: str, files: Mapping[str, list[Path]], facts: dict[str, Any]
) -> None:
    """Keep what a run made.

    Args:
        loggers: of the run; those of W&B with `keeps_models` keep it.
        name: of the run, without its time: the versions of one name follow one another.
        files: kind (checkpoint, bundle) -> its files.
        facts: about them: kimg, the value that was best, the sha256 of G.
    """
    import wandb

    for run in _runs([logger for logger in loggers if getattr(logger, "keeps_models", False)]):
        for kind, paths in files.items():
            artifact = wandb.Artifact(_plain(f"{name}-{kind}"), type="model", metadata=facts)
            for path in paths:
                artifact.add_file(str(path))
            _guarded(run.log_artifact, artifact, aliases=["best"])


def described(name: str, kind: str, facts: dict[str, Any]) -> wandb.Artifact:
    """An artifact that holds what is known of a thing: the same facts, the same version."""
    import wandb

    artifact = wandb.Artifact(_plain(name), type=kind, metadata=facts)
    with artifact.new_file(f"{kind}.json") as file:
        file.write(json.dumps(facts, indent=1, sort_keys=True))
    return artifact


def _use(run: Any, artifact: wandb.Artifact) -> None:
    if run.settings._offline:  # where W&B's use_artifact refuses; the record is the same
        _guarded(run._log_artifact, artifact, is_user_created=True, use_after_commit=True)
    else:
        _guarded(run.use_artifact, artifact)


def _guarded(call: Any, artifact: wandb.Artifact, **rest: Any) -> None:
    """No run ends because W&B did not take an artifact."""
    try:
        call(artifact, **rest)
    except Exception as error:  # of a server, or of a service in another process
        log.warning("W&B did not take the artifact %s: %s", artifact.name, error)


def _runs(loggers: list[Logger]) -> list[Any]:
    return [logger.experiment for logger in loggers if isinstance(logger, WandbRun)]


def _plain(name: str) -> str:
    """W&B's names are of letters, digits and - _ ."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]
