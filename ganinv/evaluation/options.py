"""What is asked of an evaluation, looked at before torch is imported and anything is loaded."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ganinv.core.errors import config_error
from ganinv.run.disk import check_writable
from ganinv.run.storage.base import is_address
from ganinv.run.storage.fetch import check_there

SPLITS = ("train", "val", "test")
ACCELERATORS = ("auto", "gpu", "cpu")
# of the inversion; not float16, in which G's modulated convolutions overflow, as in training
PRECISIONS = ("32-true", "bf16-mixed")


def check_options(cfg: DictConfig) -> None:
    """Look at the options before anything is loaded.

    Raises:
        ConfigError: an option that cannot work, a report that would be written over, or a place
            where nothing can be written.
        WeightsMissing: no such checkpoint.
    """
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise config_error(
            "no checkpoint", "one that train.py wrote", "add checkpoint=PATH to the command"
        )
    if cfg.split not in SPLITS:
        raise config_error(f"split={cfg.split}", f"one of {', '.join(SPLITS)}", "set split")
    for name, least in {"limit": 1, "batch_size": 1, "pictures": 1, "seed": 0}.items():
        value = cfg[name]
        whole = type(value) is int and least <= value < 2**31
        if not whole and not (name == "limit" and value is None):
            raise config_error(
                f"{name}={value}", f"a whole number of at least {least}", f"set {name}"
            )
    if cfg.trainer.accelerator not in ACCELERATORS:
        given = f"trainer.accelerator={cfg.trainer.accelerator}"
        raise config_error(given, f"one of {', '.join(ACCELERATORS)}", "set trainer.accelerator")
    for group in ("inversion", "metric"):
        if not cfg.get(group):
            raise config_error(f"no {group}", "at least one", f"set {group}=[...]")
    if cfg.trainer.precision not in PRECISIONS:
        given = f"trainer.precision={cfg.trainer.precision}"
        raise config_error(given, f"one of {', '.join(PRECISIONS)}", "set trainer.precision")
    if cfg.output is not None and Path(cfg.output).exists() and not begun(Path(cfg.output)):
        raise config_error(
            f"output={cfg.output}, which exists",
            "a folder that does not exist yet, or one that this command began",
            "choose another; nothing was overwritten",
        )
    beside = Path() if is_address(cfg.checkpoint) else Path(cfg.checkpoint).parent
    folder = beside.resolve() if cfg.output is None else Path(cfg.output)
    check_writable(folder, "the folder of the report", "set output=... to another disk")
    check_there(cfg.checkpoint)


def begun(folder: Path) -> bool:
    """Whether an evaluation has begun to write there."""
    return (folder / ".parts" / "settings.json").is_file()
