"""State dicts for other code bases: NVIDIA's generators, and IDInvert's pair of files.

    rosinality     `{"g_ema": ..., "latent_avg": ...}`
    nvidia-state   see `generator/importer/nvidia_state.py`
    genforce       files of genforce/idinvert_pytorch: `<name>_generator.pth` (StyleGAN, v1) and
                   `<name>_encoder.pth`

NVIDIA's own `.pkl`, which carries Python source, is `nvidia_pickle.py`'s.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.safe.io import write_atomic
from ganinv.generator.importer import genforce, nvidia_state, rosinality
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.interop import official
from ganinv.inversion.model import Model

FOR_GENERATORS = "export with --to safetensors, onnx or torch-export, which take any generator"


def write_nvidia(path: Path, generator: AnyGenerator) -> None:
    """Write `nvidia-state`, atomically. Errors as `export_state`."""
    _save(path, nvidia_state.export_state(generator))


def write_rosinality(path: Path, generator: AnyGenerator) -> None:
    """Write `{"g_ema": state dict, "latent_avg": [D]}` of rosinality/stylegan2-pytorch, which pSp,
    e4e and their descendants start from, atomically.

    Raises:
        ConfigError: another generator than an unconditional StyleGAN2, or one whose clamp of
            activations, which that layout lacks, changes its images.
    """
    if not isinstance(generator, StyleGAN2Generator) or generator.architecture["c_dim"]:
        classes = getattr(generator, "architecture", {}).get("c_dim", 0)
        raise ConfigError(
            explain(f"--to rosinality, and a {type(generator).__name__} of {classes} classes",
                    "an unconditional StyleGAN2", FOR_GENERATORS)
        )  # fmt: skip
    difference = official.clamp_difference(generator)
    if difference > official.CLAMP_TOLERANCE:
        raise ConfigError(
            explain("--to rosinality, and a generator whose conv_clamp changes its images (by "
                    f"{difference:.1e})", "no clamp: the layout has none", FOR_GENERATORS)
        )  # fmt: skip
    state = _plain(rosinality.export_state(generator))
    average = generator.w_avg.detach().cpu()
    _save(path, {"g_ema": state, "latent_avg": average})


def write_genforce(folder: Path, model: Model | AnyGenerator) -> list[Path]:
    """Write `<folder's name>_generator.pth` and, with an encoder, `..._encoder.pth`.

    Raises:
        ConfigError: another generator than StyleGAN (v1), or another encoder than IDInvert's.
    """
    generator = model.G if isinstance(model, Model) else model
    expected = "IDInvert's networks: a StyleGAN (v1) and DomainGuidedEncoder"
    todo = official.advice(model) if isinstance(model, Model) else FOR_GENERATORS
    if not isinstance(generator, StyleGANGenerator):
        given = f"--to genforce, and a {type(generator).__name__}"
        raise ConfigError(explain(given, expected, todo))
    if isinstance(model, Model) and model.kind != "DomainGuidedEncoder":
        given = f"--to genforce, and an encoder of class {model.kind}"
        raise ConfigError(explain(given, expected, todo))
    a = generator.architecture
    if a["layerwise"] != a["final_tanh"]:
        given = f"--to genforce, and layerwise={a['layerwise']}, final_tanh={a['final_tanh']}"
        raise ConfigError(explain(given, "both or neither: its files record neither", todo))
    written = [folder / f"{folder.name}_generator.pth"]
    _save(written[0], _plain(genforce.export_state(generator, "idinvert")))
    if isinstance(model, Model):
        written.append(folder / f"{folder.name}_encoder.pth")
        _save(written[1], _plain(model.E.state_dict()))
    return written


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def _save(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())
