"""Evaluate a trained encoder: compose, invert, measure, print the table, write the report.

python evaluate.py checkpoint=runs/NAME/checkpoints/best.ckpt
python evaluate.py checkpoint=... metric=[distortion,lpips] split=val limit=100
python evaluate.py --help                               every group and key
"""

import sys

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from ganinv.config.build import build_data
from ganinv.config.check import check, check_config
from ganinv.config.command import run_command
from ganinv.config.instantiate import instantiate
from ganinv.core.errors import USER_ERRORS
from ganinv.evaluation.measure import (
    check_input_size,
    dataset_of,
    device_of,
    facts_of,
    measure,
    output_folder,
    refuse,
    seed_of,
    write,
)
from ganinv.evaluation.open import open_model


def evaluate(cfg: DictConfig) -> None:
    """One checkpoint on one split."""
    check_config(cfg)
    refuse(cfg)
    device = device_of(cfg.device)
    pl.seed_everything(cfg.seed, verbose=False)
    opened = open_model(cfg.checkpoint, cfg.generator_weights)
    model = opened.model
    data = build_data(dataset_of(cfg, opened), model.task, batch_size=cfg.batch_size)
    check_input_size(model, data.image_size)
    check(model.G, data, [cfg.split])
    data.prepare_data()
    model.to(device, memory_format=torch.channels_last)
    inversions = {name: instantiate(part, model=model) for name, part in cfg.inversion.items()}
    metrics = [instantiate(part).to(device) for part in cfg.metric.values()]
    result = measure(
        model,
        data.eval_dataloader(cfg.split),
        min(data.count(cfg.split), cfg.limit or sys.maxsize),
        inversions,
        metrics,
        facts_of(cfg, opened, device),
        seed=seed_of(cfg, opened),
        pictures=cfg.pictures,
        device=device,
    )
    write(result, output_folder(cfg, opened))


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Entry point: what a user can get wrong ends in one sentence, not in a traceback."""
    try:
        evaluate(cfg)
    except USER_ERRORS as error:
        sys.exit(f"\n{type(error).__name__}: {error}")


if __name__ == "__main__":
    run_command(main)
