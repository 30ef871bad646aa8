"""What a command was given: a training checkpoint, a bundle, an official checkpoint or a generator;
told apart by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ganinv.core.errors import ConfigError, WeightsMissing, explain
from ganinv.core.safe.io import load_tensors, read_safetensors, sha256_file
from ganinv.evaluation.trained import Trained, load_trained
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.importer.load import load_generator
from ganinv.generator.importer.nvidia import is_pickle
from ganinv.interop import bundle, imported
from ganinv.interop.encoder import ENCODERS, close_heads
from ganinv.interop.inverter import STEPS, Inverter
from ganinv.method.gan import GAN
from ganinv.method.inverting import EncoderMethod
from ganinv.method.restyle import IterativeRefinement


def open_model(path: Path, generator: Path | None = None) -> tuple[Inverter | AnyGenerator, str]:
    """The model of a file, on the CPU, and a sentence on what it is.

    Args:
        path: a `.ckpt` of train.py, a bundle, a checkpoint of pSp, e4e or ReStyle, an encoder of
            IDInvert (which needs `generator`), or a generator of any kind.
        generator: the generator's file, where it is not where it was.

    Raises:
        WeightsMissing, WeightsError: unreadable, or a generator that is missing or another one.
        ConfigError: a checkpoint of a method with neither an encoder nor a generator.
    """
    if not path.is_file():
        raise WeightsMissing(
            explain(f"no file {path}", "a checkpoint, a bundle or a generator", "check the path")
        )
    if path.suffix == ".safetensors":
        _, metadata = read_safetensors(path)
        if metadata.get("format") == bundle.FORMAT:
            found = bundle.load(path, generator)
            return found, f"{found.kind}, a bundle"
        return _generator(path)
    if is_pickle(path):
        return _generator(path)
    content = load_tensors(path)
    if isinstance(content, dict) and "ganinv" in content:
        return of_trained(load_trained(path, "cpu", str(generator) if generator else None), path)
    if imported.is_official(content):
        found = imported.read(content)
        found.generator.source, found.generator.sha256 = str(path), sha256_file(path)
        return found, f"{found.kind} with its generator, from a checkpoint of released code"
    if imported.is_idinvert(content):
        if generator is None:
            raise ConfigError(
                explain(f"{path}, an encoder of IDInvert", "its generator beside it",
                        "add --generator FILE, the *_generator.pth of the same name")
            )  # fmt: skip
        frozen = load_generator(weights=str(generator), resolution=None, kind=None, origin=None)
        return imported.idinvert(content, frozen), "an encoder of IDInvert with its generator"
    return _generator(path)


def _generator(path: Path) -> tuple[AnyGenerator, str]:
    generator = load_generator(weights=str(path), resolution=None, kind=None, origin=None)
    return generator, f"{type(generator).__name__} of {generator.resolution} px"


def of_trained(trained: Trained, path: Path) -> tuple[Inverter | AnyGenerator, str]:
    """A training run's encoder with its generator, or the generator that it trained.

    Raises:
        ConfigError: a method of which neither can be taken.
    """
    method, words = trained.method, f"after {trained.images_seen / 1000:g} kimg"
    if isinstance(method, GAN):
        average = method.G_ema
        average.source, average.sha256 = str(path), sha256_file(path)
        return average, f"StyleGAN2 of {average.resolution} px, {words}"
    config = OmegaConf.to_container(trained.cfg, resolve=True)
    assert isinstance(config, dict)
    node: dict[str, Any] = dict(config.get("encoder") or {})
    kind = str(node.pop("_target_", "")).rpartition(".")[2]
    if not isinstance(method, EncoderMethod) or kind not in ENCODERS:
        raise ConfigError(
            explain(f"{path}, made by {type(method).__name__} with encoder {kind or 'none'}",
                    f"an encoder of class {', '.join(ENCODERS)}",
                    "pass the checkpoint of such a method")
        )  # fmt: skip
    generator = method.generator
    architecture = node | {"num_ws": generator.num_ws, "w_dim": generator.w_dim}
    if "trunk_weights" in architecture:
        architecture["trunk_weights"] = None
    stage, last = getattr(method, "stage", None), getattr(method.E, "last_stage", None)
    if stage is not None and last is not None and stage < last:
        close_heads(method.E, stage)
        words += f", rows above {stage} still equal to w"
    inverter = Inverter(
        encoder=method.E,
        generator=generator,  # type: ignore[arg-type]
        architecture=architecture,
        start_from_w_avg=method.start_from_w_avg,
        steps=method.refinements if isinstance(method, IterativeRefinement) else STEPS,
        config={str(key): value for key, value in config.items()},
    )
    return inverter, f"{kind} trained by {type(method).__name__}, {words}"
