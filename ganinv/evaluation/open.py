"""Any file that holds a model -> the model, frozen, and where it is from; told apart by content.

    training checkpoint (.ckpt)           of a method with an encoder; or of `method=gan`, its G_ema
    bundle (.safetensors)                 written by `ganinv export --to safetensors`, `ganinv import`
    checkpoint of pSp, e4e, ReStyle       encoder and generator in one file
    encoder of IDInvert                   with its generator in a file of its own
    inversion (.safetensors)              of `ganinv invert --method`: its generator, tuned
    generator                             whatever `generator.weights` takes: no encoder

`evaluate.py`, `ganinv invert`, `ganinv export` and `ganinv.load` all open files here.
"""  # noqa: E501

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.config.build import build_method, build_part
from ganinv.config.start import START
from ganinv.config.stored import StoredConfig, check_networks, stored_generator
from ganinv.core.command import entry
from ganinv.core.errors import ConfigError, WeightsError, explain, shown
from ganinv.core.network import refused_as_malformed
from ganinv.core.safe.io import read_metadata, sha256_file
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.importer.load import load_generator, read_torch_file
from ganinv.generator.importer.nvidia import is_pickle
from ganinv.interop import bundle, feature, imported
from ganinv.interop.encoder import close_heads
from ganinv.inversion.file import FORMAT, check_generator, read_inversion, tuned
from ganinv.inversion.model import Model
from ganinv.method.base import Method
from ganinv.method.gan import GAN
from ganinv.method.inverting import EncoderMethod
from ganinv.run.checkpoint import read_checkpoint
from ganinv.run.storage.fetch import check_there, local


@dataclass(frozen=True)
class Opened:
    """What a file holds, on the CPU, frozen."""

    path: Path
    network: Model | AnyGenerator
    kind: str  # who made it: a method's class, "bundle", "released code" or a generator's class
    words: str  # a sentence on what it is
    config: dict[str, Any] = field(default_factory=dict)  # of the training run, where there is one
    images_seen: int | None = None  # by that run
    dataset_type: str | None = None  # what a released checkpoint calls its images
    code: Tensor | None = None  # wp [1,L,D] of the image that an inversion's generator is tuned for

    @property
    def generator(self) -> AnyGenerator:
        """G, with `source` and `sha256`."""
        return self.network.G if isinstance(self.network, Model) else self.network

    @property
    def model(self) -> Model:
        """E + G.

        Raises:
            ConfigError: a generator without an encoder.
        """
        if not isinstance(self.network, Model):
            raise ConfigError(
                explain(f"{self.path} ({self.words}), which has no encoder from images to W+",
                        "a model with an encoder",
                        "pass the checkpoint of one, or train one on this generator: "
                        f"{entry('train')}")
            )  # fmt: skip
        return self.network


def open_model(
    path: str | os.PathLike[str], generator: str | os.PathLike[str] | None = None
) -> Opened:
    """Open a file.

    Args:
        path: see the table above; or its address, s3://bucket/runs/NAME/checkpoints/best.ckpt.
        generator: the generator's file, where it has moved; of IDInvert's encoder, always.

    Raises:
        WeightsMissing, WeightsError: unreadable, or a generator that is missing or another one.
        ConfigError: a checkpoint of a method with neither an encoder nor a generator.
    """
    path = local(path)
    weights = None if generator is None else str(generator)
    check_there(path)
    with refused_as_malformed(path, "model"):
        return _opened(path, weights)


def _opened(path: Path, weights: str | None) -> Opened:
    if path.suffix == ".safetensors":
        return _safetensors(path, weights)
    if is_pickle(path):
        return _generator(path)
    content = read_torch_file(path)
    if isinstance(content, dict) and "ganinv" in content:
        return _of_training(load_trained(path, "cpu", weights), path)
    if imported.is_official(content):
        model = imported.read(content)
        model.G.source, model.G.sha256 = str(path), sha256_file(path)
        words = f"{model.kind} with its generator, from a checkpoint of released code"
        name = imported.dataset_type(content)
        return Opened(path, model, "released code", words, dataset_type=name)
    if feature.is_base_code(content):
        raise _no_codes(path)
    if imported.is_idinvert(content):
        if weights is None:
            raise ConfigError(
                explain(f"{path}, an encoder of IDInvert", "its generator beside it",
                        "add --generator FILE (evaluate.py: generator_weights=FILE), the "
                        "*_generator.pth of the same name")
            )  # fmt: skip
        frozen = load_generator(weights=weights, resolution=None, kind=None, origin=None)
        words = "an encoder of IDInvert with its generator"
        return Opened(path, imported.idinvert(content, frozen), "released code", words)
    return _generator(path)


def _no_codes(path: Path) -> ConfigError:
    return ConfigError(
        explain(f"{path}, BDInvert's base-code encoder, which gives f and no codes",
                "a model with an encoder to W+, or a generator",
                f"train it further: method=bdinvert encoder.weights={path}")
    )  # fmt: skip


def _safetensors(path: Path, weights: str | None) -> Opened:
    metadata = read_metadata(path)
    if metadata.get("format") == "ganinv-encoder":
        raise _no_codes(path)
    if metadata.get("format") == FORMAT:
        return _inversion(path, weights)
    if metadata.get("format") != bundle.FORMAT:
        return _generator(path)
    model, origin = bundle.load(path, weights)
    return Opened(path, model, "bundle", f"{model.kind}, a bundle", **origin)


def _inversion(path: Path, weights: str | None) -> Opened:
    """The generator with one image's noise maps and changes of the weights in it."""
    found, metadata = read_inversion(path)
    source = weights or metadata.get("generator_source")
    if not isinstance(source, str):
        raise ConfigError(
            explain(f"{path}, which names no generator", "the generator's file",
                    "add --generator FILE")
        )  # fmt: skip
    generator = _base(source)
    check_generator(path, metadata, generator)
    made = tuned(path, found, generator)
    kind, key = type(made).__name__, shown(metadata.get("key"))
    words = f"{kind} of {made.resolution} px, as {shown(metadata.get('method'))} left it for {key}"
    return Opened(path, made, kind, words, code=found.wp)


def _base(source: str) -> AnyGenerator:
    """The generator that an inversion names: of a file of any kind but another inversion."""
    path = Path(source)
    if not path.is_file():
        return load_generator(weights=source, resolution=None, kind=None, origin=None)
    if path.suffix == ".safetensors" and read_metadata(path).get("format") == FORMAT:
        raise WeightsError(
            explain(f"{path}, an inversion, as the generator of another one", "a generator's file",
                    "add --generator FILE")
        )  # fmt: skip
    return open_model(path).generator


def _generator(path: Path) -> Opened:
    generator = load_generator(weights=str(path), resolution=None, kind=None, origin=None)
    kind = type(generator).__name__
    return Opened(path, generator, kind, f"{kind} of {generator.resolution} px")


def _of_training(trained: Trained, path: Path) -> Opened:
    """A training run's encoder with its generator, or the generator that it trained."""
    method, words = trained.method, f"after {trained.images_seen / 1000:g} kimg"
    config = dict(trained.cfg)
    name = type(method).__name__
    if isinstance(method, GAN):
        average = method.G_ema.eval().requires_grad_(False)
        average.source, average.sha256 = str(path), sha256_file(path)
        words = f"StyleGAN2 of {average.resolution} px trained by GAN, {words}"
        return Opened(path, average, name, words, config, trained.images_seen)
    node = dict(config.get("encoder") or {})
    for key in START:  # what E started from
        node.pop(key, None)
    kind = str(node.pop("_target_", "")).rpartition(".")[2]
    if not isinstance(method, EncoderMethod) or not method.inverts:
        raise ConfigError(
            explain(f"{path}, made by {name}, whose encoder does not lead from an image to wp",
                    "the checkpoint of a method whose encoder does",
                    "pass one; a base-code encoder goes with it as inversion.bdinvert.base_code=")
        )  # fmt: skip
    model = method.model
    model.architecture = node | {"num_ws": model.num_ws, "w_dim": model.w_dim}
    stage, last = getattr(method, "stage", None), getattr(method.E, "last_stage", None)
    if stage is not None and last is not None and stage < last:
        close_heads(method.E, stage)
        words += f", layers above {stage} still equal to w"
    model.freeze().to(memory_format=torch.contiguous_format)
    words = f"{kind} trained by {name}, {words}"
    return Opened(path, model, name, words, config, trained.images_seen)


# ------------------------------------------------------------------ training checkpoints


@dataclass
class Trained:
    """The method of a training checkpoint."""

    cfg: StoredConfig  # of the training run, as the file has it: plain data, checked
    method: Method  # in eval mode, on the asked device
    images_seen: int
    provenance: dict[str, Any]  # generator_source, generator_sha256, version


def load_trained(
    path: str | os.PathLike[str], device: str = "cpu", generator_weights: str | None = None
) -> Trained:
    """Rebuild the method of a checkpoint: its config, its generator and its trained weights; the
    losses, which only training needs, are left out.

    Args:
        path: the checkpoint.
        device: where the method goes.
        generator_weights: the generator's file, where it is no longer at the path of the config.

    Raises:
        WeightsMissing: the checkpoint, or a weights file its config names, is not there.
        WeightsError: unreadable, of another kind, or trained on another generator.
    """
    checkpoint = read_checkpoint(path)
    provenance = StoredConfig(checkpoint["ganinv"], path)
    cfg = StoredConfig(provenance.pop("config", None), path)
    if generator_weights is not None and stored_generator(cfg):
        cfg["generator"]["weights"] = str(generator_weights)
    frozen = build_part(cfg, "generator") if stored_generator(cfg) else None
    check_networks(cfg, frozen, checkpoint["state_dict"])
    method = build_method(cfg, frozen or build_part(cfg, "generator"), training=False)
    method.on_load_checkpoint(checkpoint)
    method.load_state_dict(checkpoint["state_dict"], strict=False)
    method.eval().requires_grad_(False).to(device)
    return Trained(cfg, method, checkpoint["images_seen"], provenance)
