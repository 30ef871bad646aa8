"""The work of `ganinv fit probe`: features of a dataset's images, and heads on them."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

from ganinv.backbone.probe import ENOUGH, Look, write_probe
from ganinv.config.build import build_data
from ganinv.config.folder import CONF
from ganinv.config.probe import backbone
from ganinv.core.errors import ConfigError, explain
from ganinv.core.image import to_unit
from ganinv.dataset.attributes import usual
from ganinv.editing.probe import Split, fit
from ganinv.task.image import Image

BATCH = 64
SPLITS = ("train", "val", "test")


def dataset_config(name: str, settings: list[str]) -> DictConfig:
    """conf/dataset/NAME.yaml with settings, checked.

    Raises:
        ConfigError: no such dataset, no such key, or a value that cannot be.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import ConfigCompositionException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    from ganinv.config.check import check_config
    from ganinv.config.command import refusal, unknown_choice

    known = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    if name not in known:
        raise ConfigError(str(unknown_choice("dataset", name, known)).replace(
            "dataset=", "--dataset ", 1))  # fmt: skip
    words = [f"dataset={name}", "checkpoint=none"]
    for word in settings:
        if "=" not in word:
            raise ConfigError(explain(f"--set {word}", "KEY=VALUE", "e.g. --set root=data/mine"))
        words.append(word if word.startswith("dataset.") else f"dataset.{word}")
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("evaluate", overrides=words)
    except (ConfigCompositionException, OverrideParseException, OmegaConfBaseException) as error:
        raise refusal(error) from error
    check_config(cfg)
    OmegaConf.resolve(cfg)
    return cfg


def fit_probe(args: argparse.Namespace) -> int:
    """Fit, say how good each is, write.

    Raises:
        ConfigError: a dataset that knows no attributes, or one that is not there.
    """
    cfg = dataset_config(args.dataset, args.settings)
    network = backbone(args.backbone)
    data = build_data(cfg, Image())
    look = Look(args.backbone, stages_of(args.stages, network), _grid(args.grid),
                tuple(data.image_size))  # fmt: skip
    data.prepare_data()
    data.check(SPLITS)
    found = {split: look_at(data, split, look, network, args.limit) for split in SPLITS}
    asked = args.attributes.split(",") if args.attributes else usual(found["train"].records[0])
    heads, weight, bias = fit(found["train"], found["val"], found["test"], asked)
    about = {
        "fitted": {
            "dataset": OmegaConf.to_container(cfg.dataset),
            "images": {split: len(part.records) for split, part in found.items()},
            "by": "ridge regression, its strength chosen on val, measured on test",
        }
    }
    write_probe(args.out, look, heads, weight, bias, **about)
    table = Table(header_style="bold")
    for name in ("attribute", "test split", "claims"):
        table.add_column(name)
    for head in heads:
        good = head.test >= ENOUGH
        table.add_row(head.name, head.words, "yes" if good else f"no, below {ENOUGH}")
    Console().print(table)
    images = ", ".join(f"{len(part.records)} {split}" for split, part in found.items())
    print(f"{args.out}  {len(heads)} attributes, from {images} images")
    return 0


def stages_of(text: str, network: nn.Module) -> tuple[int, ...]:
    """Stages of a list such as "1,2", none of "none".

    Raises:
        ConfigError: a stage that is not there.
    """
    if text == "none":
        return ()
    parts = text.split(",")
    stages: Any = getattr(network, "stages", None)
    if stages is None:
        raise ConfigError(
            explain(f"--stages {text} with {type(network).__name__}, which has none",
                    "its pooled features", "--stages none")
        )  # fmt: skip
    count = len(stages(torch.zeros(1, 3, 64, 64)))
    if not all(p.isdigit() and len(p) < 3 and int(p) < count for p in parts):
        raise ConfigError(
            explain(f"--stages {text}", f"numbers from 0 to {count - 1}", "e.g. --stages 1,2")
        )
    return tuple(int(p) for p in parts)


def _grid(cells: int) -> int:
    if not 1 <= cells <= 64:
        raise ConfigError(explain(f"--grid {cells}", "1 to 64 cells a side", "e.g. --grid 8"))
    return cells


@torch.no_grad()
def look_at(data: Any, split: str, look: Look, network: nn.Module, limit: int | None) -> Split:
    """Features and records of a split's images.

    Raises:
        ConfigError: a dataset whose images have no attributes.
    """
    total = data.count(split)
    total = min(total, limit or total) if split == "train" else total
    features, records = [], []
    batches = [list(range(i, min(i + BATCH, total))) for i in range(0, total, BATCH)]
    for batch in tqdm(data.eval_dataloader(split, batches), desc=split, leave=False, disable=None):
        if "attributes" not in batch or "image" not in batch:
            raise ConfigError(
                explain(f"a dataset whose {split} images have no attributes",
                        "one whose every image has a record of them",
                        "choose another --dataset, e.g. avatars64")
            )  # fmt: skip
        features.append(look(network, to_unit(batch["image"])))
        records += batch["attributes"]
    return Split(torch.cat(features), records)
