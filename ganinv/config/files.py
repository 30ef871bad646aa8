"""Files that a training needs, looked for before torch is imported to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ganinv.dataset.place import check_place, is_remote
from ganinv.generator.importer.find import find

GENERATOR = "ganinv.generator.importer.load.load_generator"
SHARDS = "ganinv.dataset.module.ShardData"


def check_files(cfg: DictConfig) -> None:
    """Refuse a generator's file or a set of images that is not there. Others know more when they
    are built; what is at an address is asked for then.

    Raises:
        WeightsMissing: the generator's file.
        DataError: the folder of the training or the validation images.
    """
    generator: Any = cfg.generator
    if generator["_target_"] == GENERATOR:
        find(generator.weights, generator.get("origin"))
    dataset: Any = cfg.dataset
    if dataset["_target_"] == SHARDS and not is_remote(dataset.root):
        for split in ("train", "val"):
            check_place(Path(dataset.root).expanduser() / split)
