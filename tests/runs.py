"""Small real runs for the tests: train.py's own path, on a few drawn faces and a tiny generator."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from evaluate import evaluate
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.stylegan2 import StyleGAN2Generator
from train import train

ROOT = Path(__file__).parents[1]
METHODS = sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml"))
SHAPE = {"c_dim": 0, "resolution": 64, "img_channels": 3, "channel_base": 512, "channel_max": 8}


def methods(*always: str) -> list[Any]:
    """Every method, as a parameter; those that are not named only by `pytest -m nightly`, for what
    is tested hardly depends on them."""
    return [m if m in always else pytest.param(m, marks=pytest.mark.nightly) for m in METHODS]


def tiny_generator_file(folder: Path) -> Path:
    """A 64 px generator with random weights (tests only)."""
    torch.manual_seed(0)
    generator = StyleGAN2Generator(z_dim=16, w_dim=16, mapping_layers=2, conv_clamp=256, **SHAPE)
    for name, value in generator.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.1)
    generator.mapping.w_avg.copy_(generator.mapping(torch.randn(1000, 16)).mean(0))
    critic = StyleGAN2Discriminator(conv_clamp=256, mbstd_group_size=1, **SHAPE)
    path = folder / "tiny64.safetensors"
    save_bundle(path, generator, {"recipe": "random weights for tests"}, critic)
    return path


def overrides(method: str, generator: Path, cache: Path) -> list[str]:
    """A run of `method` that takes seconds: batches of 4, the smallest networks."""
    common = [
        f"method={method}",
        "logger=csv",
        f"dataset.cache={cache}",
        "dataset.num_train=20",
        "dataset.num_val=6",
        "dataset.num_test=6",
        "dataset.batch_size=4",
        "trainer.threads=1",
        "trainer.val_every_kimg=0.016",
        "trainer.save_every_kimg=0.008",
        "trainer.log_every_images=4",
        "trainer.max_kimg=0.024",
        "trainer.rate_decay=0",
    ]
    if method == "gan":
        small = ["z_dim=16", "w_dim=16", "mapping_layers=2", "channel_base=512", "channel_max=8"]
        return (
            common
            + [f"generator.{pair}" for pair in small]
            + ["method.reg_interval=2", "method.fid=null"]
        )
    common += [f"generator.weights={generator}", "optimizer.lr=1e-4"]
    if method == "bdinvert":
        common = [a for a in common if "cache" not in a and "num_t" not in a]
        common += ["encoder.channels=8", "encoder.channel_base=8", "encoder.channel_max=8"]
    if method == "idinvert":
        common += ["encoder.channel_base=4", "encoder.channel_max=16"]
    if method.startswith("restyle"):
        common.append("method.refinements=2")
    if method.endswith("e4e"):
        common += ["method.r1_every=2", "method.pool_size=6"]
        common += ["method.progressive_start=8", "method.progressive_every=4"]
    return common


def plain_overrides(method: str, generator: Path, cache: Path) -> list[str]:
    """`overrides` without the perceptual loss, which is a third of such a run's time: for tests of
    processes, disks and ranks."""
    has_none = method in ("bdinvert", "gan")  # bdinvert trains on nothing else
    return overrides(method, generator, cache) + ["loss.perceptual=null"] * (not has_none)


def composed(arguments: list[str]) -> DictConfig:
    """What `python train.py <arguments>` composes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=arguments, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def composed_evaluate(*arguments: str) -> DictConfig:
    """What `python evaluate.py <arguments>` composes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = copy.deepcopy(compose("evaluate", overrides=list(arguments)))
    with open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg


def evaluated(*arguments: str) -> None:
    """Evaluate in this process, as evaluate.py does."""
    evaluate(composed_evaluate(*arguments))


def run(arguments: list[str]) -> None:
    """Train in this process, as train.py does."""
    train(composed(arguments))


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two nested checkpoints differ, bit for bit."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and torch.equal(first, second)
        return [] if same else [path]
    if isinstance(first, dict):
        if set(first) != set(second):
            return [f"{path}: keys {set(first) ^ set(second)}"]
        return [d for key in first for d in differences(first[key], second[key], f"{path}.{key}")]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [f"{path}: length"]
        pairs = enumerate(zip(first, second, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}[{i}]")]
    return [] if first == second else [f"{path}: {first!r} != {second!r}"]
