"""`trainer=dry`: one step of a recipe at full size, on noise, before anything was downloaded.

Weights that are on this machine are used; those that are missing are random, and each is named. It
reports the trained and the frozen parameters, the time of the step and the memory it took, or says
at once how much memory the recipe needs at least. Nothing is written but to a temporary folder.
"""

from __future__ import annotations

import copy
import importlib
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn
from torch.utils.data import DataLoader

from ganinv.backbone.catalogue import CATALOGUE, locate
from ganinv.config.build import build_method
from ganinv.config.check import check_images, check_resolution
from ganinv.config.instantiate import instantiate
from ganinv.core.errors import ConfigError, WeightsMissing, explain
from ganinv.discriminator.stylegan import StyleGANDiscriminator
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer.bundle import AnyGenerator, save_bundle
from ganinv.generator.importer.find import find
from ganinv.generator.kind import random_generator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.loss.lpips import FILES, LPIPS
from ganinv.loss.term import Term
from ganinv.method.base import Method
from ganinv.trainer.quiet import quieten

GIB = 2**30
BACKBONES = {  # what loads a network -> its name among the weights, and the network itself
    "ganinv.backbone.irse.arcface": ("arcface_ir_se50", "ganinv.backbone.irse.ArcFaceNet"),
    "ganinv.backbone.moco.moco_resnet50": (
        "moco_v2_resnet50",
        "ganinv.backbone.moco.MoCoResNet50",
    ),
    "ganinv.backbone.vgg16.vgg16_caffe": ("vgg16_caffe", "ganinv.backbone.vgg16.VGG16Caffe"),
}
TRUNKS = {"model_ir_se50.pth": "arcface_ir_se50", "resnet34-b627a593.pth": "resnet34"}


def dry_run(cfg: DictConfig) -> None:
    """One step of a composed config.

    Raises:
        ConfigError: more memory is needed than there is; or the config cannot work.
    """
    quieten()
    if cfg.trainer.compile is not False:
        raise ConfigError(
            explain(f"trainer.compile={cfg.trainer.compile} with trainer=dry", "false: a dry run "
                    "takes one step, and is not compiled", "leave it out")
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        cfg, drawn = with_random_weights(cfg, Path(folder))
        print("Dry run: one step on noise; nothing is saved.")
        for name in drawn:
            print(f"  random: {name}")
        pl.seed_everything(cfg.seed, verbose=False)
        generator = instantiate(cfg.generator)
        data = Noise(cfg)
        check_images(generator)
        check_resolution(generator, cfg.dataset.get("generator_resolutions"), data.image_size)
        method = build_method(cfg, generator)
    device = _device(cfg.trainer.accelerator)
    check_memory(method, device)
    one_step(method, data, cfg, device)


# ------------------------------------------------------------------ weights


def with_random_weights(cfg: DictConfig, folder: Path) -> tuple[DictConfig, list[str]]:
    """The config with every missing file replaced, and what was replaced."""
    cfg = copy.deepcopy(cfg)
    drawn: list[str] = []
    with open_dict(cfg):
        _generator(cfg, folder, drawn)
        trunk = cfg.get("encoder", {}).get("trunk_weights")
        if trunk is not None and not _is_here(TRUNKS.get(trunk, "arcface_ir_se50"), trunk):
            cfg.encoder.trunk_weights = None
            drawn.append(f"encoder.trunk_weights ({trunk})")
        for path, node in _built(cfg.get("loss"), "loss"):
            _loss_network(path, node, drawn)
    return cfg, drawn


def _generator(cfg: DictConfig, folder: Path, drawn: list[str]) -> None:
    if "weights" not in cfg.generator:
        return  # the GAN's own, which starts random anyway
    missing = OmegaConf.is_missing(cfg.generator, "weights")
    wants_critic = "discriminator_weights" in cfg.get("method", {})
    try:
        if missing:
            raise WeightsMissing("no file named")
        find(cfg.generator.weights, cfg.generator.origin)
        if not wants_critic or not OmegaConf.is_missing(cfg.method, "discriminator_weights"):
            return
    except WeightsMissing:
        pass
    name = "generator" if missing else f"generator ({cfg.generator.weights})"
    generator = random_generator(cfg.generator.kind, cfg.generator.resolution)
    critic = random_critic(generator) if wants_critic else None
    path = folder / "random.safetensors"
    save_bundle(path, generator, {"recipe": "random weights of a dry run"}, critic, half=False)
    cfg.generator.weights = str(path)
    drawn.append(f"{name}, {cfg.generator.kind} of {cfg.generator.resolution} px")
    if critic is not None:
        cfg.method.discriminator_weights = str(path)
        drawn.append("method.discriminator_weights")


def random_critic(generator: AnyGenerator) -> nn.Module:
    """The discriminator of a generator's size."""
    own = generator.architecture
    shared = {
        key: own[key] for key in ("resolution", "img_channels", "channel_base", "channel_max")
    }
    if isinstance(generator, StyleGANGenerator):
        return StyleGANDiscriminator(mbstd_group_size=4, **shared)
    return StyleGAN2Discriminator(c_dim=0, conv_clamp=None, mbstd_group_size=4, **shared)


def _built(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Every part of a config that builds something."""
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        yield path, node
    for key in list(node):
        if not OmegaConf.is_missing(node, key):
            yield from _built(node[key], f"{path}.{key}")


def _loss_network(path: str, node: DictConfig, drawn: list[str]) -> None:
    target = node["_target_"]
    if target in BACKBONES:
        name, network = BACKBONES[target]
    elif target == "ganinv.loss.lpips.LPIPS":
        name, network = FILES[node.net], "ganinv.trainer.dry.random_lpips"
    else:
        return
    if _is_here(name, node.weights):
        return
    drawn.append(f"{path} ({CATALOGUE[name].file})")
    node["_target_"] = network
    del node["weights"]


def _is_here(name: str, path: str | None) -> bool:
    try:
        locate(name, path)
    except WeightsMissing:
        return False
    return True


def random_lpips(*, weight: float, net: str) -> LPIPS:
    """LPIPS with random trunk weights."""
    term = LPIPS.__new__(LPIPS)
    Term.__init__(term, weight=weight)
    package = importlib.import_module("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it calls torchvision by an older name
        term.network = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    term.network.eval().requires_grad_(False)
    return term


# ------------------------------------------------------------------ data


class Noise:
    """Batches of the dataset's and the task's shapes.

    Args:
        cfg: the config.
    """

    def __init__(self, cfg: DictConfig) -> None:
        height, width = cfg.dataset.image_size
        self.image_size = int(height), int(width)
        self.batch_size = int(cfg.dry.batch_size)
        self.synthetic = cfg.dataset.get("psi"), cfg.dataset.get("cutoff")
        self.reads = instantiate(cfg.task).reads
        if self.batch_size < 1 or self.batch_size % cfg.trainer.micro_batches:
            raise ConfigError(
                explain(
                    f"dry.batch_size={self.batch_size} with "
                    f"trainer.micro_batches={cfg.trainer.micro_batches}",
                    "a multiple of trainer.micro_batches",
                    "change either",
                )
            )

    def batch(self) -> dict[str, Any]:
        """One batch."""
        b, draw = self.batch_size, torch.Generator().manual_seed(0)
        found: dict[str, Any] = {"key": [f"noise{i}" for i in range(b)]}
        found["position"] = torch.arange(b)
        psi, cutoff = self.synthetic
        if psi is not None:
            recipe = {"split": "train", "psi": psi, "cutoff": cutoff}
            return found | {"synthetic": recipe | {"image_size": self.image_size}}
        shape = (b, 3, *self.image_size)
        found["image"] = torch.randint(256, shape, dtype=torch.uint8, generator=draw)
        if self.reads is not None:
            channels, most = (3, 256) if self.reads == "rgb" else (1, 256)
            most = 2 if self.reads == "labels" else most
            size = (b, channels, *self.image_size)
            found["source"] = torch.randint(most, size, dtype=torch.uint8, generator=draw)
        return found


# ------------------------------------------------------------------ memory and the step


def _device(accelerator: str) -> torch.device:
    gpu = accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process may still take; None where this system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))


def least_memory(method: Method) -> int:
    """Bytes of gradients and of the optimizers' states, which a step adds to the weights: one
    gradient and two moments a trained number. Activations come on top."""
    trained = [p for name in method.player_names for p in getattr(method, name).parameters()]
    return sum(3 * p.numel() * p.element_size() for p in trained)


def check_memory(method: Method, device: torch.device) -> None:
    """Print the parameters; refuse what cannot fit.

    Raises:
        ConfigError: saying how much is needed at least.
    """
    for name, part in method.named_children():
        count = sum(p.numel() for p in part.parameters()) / 1e6
        trained = "trained" if name in method.player_names else "frozen"
        print(f"  {name}: {count:.1f} M parameters, {trained}")
    weights = sum(p.numel() * p.element_size() for p in method.parameters())
    needed = least_memory(method) + (weights if device.type == "cuda" else 0)
    total, free = weights + least_memory(method), free_memory(device)
    print(f"  weights, gradients and optimizer states: {total / GIB:.1f} GiB", flush=True)
    if free is not None and needed > free:
        raise ConfigError(
            explain(
                f"a recipe that needs at least {needed / GIB:.1f} GiB more on {device.type}, "
                "activations not counted",
                f"{free / GIB:.1f} GiB, which are free",
                "use a device with more memory",
            )
        )


class Stop(pl.Callback):
    """Ends after one step and times it."""

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        """Start the timer."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        """Stop the timer and the run."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start
        trainer.should_stop = True


def one_step(method: Method, data: Noise, cfg: DictConfig, device: torch.device) -> None:
    """Take the step and report.

    Raises:
        ConfigError: it ran out of memory.
    """
    stop = Stop()
    trainer = pl.Trainer(
        accelerator=device.type,
        devices=1,
        precision=cfg.trainer.precision,
        callbacks=[stop],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=-1,
        limit_val_batches=0,
    )
    loader: Any = DataLoader([data.batch()] * 2, batch_size=None)  # type: ignore[arg-type]
    try:
        trainer.fit(method, loader)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        free = free_memory(device)
        raise ConfigError(
            explain(
                f"a step of {data.batch_size} images that does not fit into this {device.type}'s "
                f"memory ({str(error).splitlines()[0]})",
                "a step that fits" if free is None else f"one that fits into {free / GIB:.1f} GiB",
                "lower dry.batch_size, or use a device with more memory",
            )
        ) from None
    values = ", ".join(f"{k} {float(v):.3g}" for k, v in sorted(method.values.items()))
    print(f"  {values}")
    peak = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
    )
    print(
        f"One step of {data.batch_size} images on {device.type} ({cfg.trainer.precision}): "
        f"{stop.seconds:.1f} s, {peak / GIB:.1f} GiB at most"
    )
