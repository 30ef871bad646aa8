"""NVIDIA's generators as plain tensors and values, written and read: what remains of a `.pkl` when
its Python source is left out.

    file   {"G_ema": state dict, "class": a class of the repository stylegan3, "init_kwargs": {...},
            "stylegan2_ada": {"class": ..., "init_kwargs": {...}}, of a StyleGAN2}

    G = Generator(**file["init_kwargs"]); G.load_state_dict(file["G_ema"])     with NVIDIA's classes

StyleGAN2 has a class in two repositories, with arguments of two forms: stylegan3 takes those of the
synthesis flat, stylegan2-ada-pytorch in `synthesis_kwargs`. Each is written under its class; a file
with either is read. The state dict's keys are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganinv.core.errors import ConfigError, WeightsError, explain, reason_of, shown
from ganinv.core.network import filled
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator

ADA = "training.networks.Generator"  # of stylegan2-ada-pytorch; the others are stylegan3's
CLASSES: dict[str, type[StyleGAN2Generator] | type[StyleGAN3Generator]] = {
    "training.networks_stylegan2.Generator": StyleGAN2Generator,
    "training.networks_stylegan3.Generator": StyleGAN3Generator,
    ADA: StyleGAN2Generator,
}
SHARED = {  # our argument -> NVIDIA's
    "z_dim": "z_dim",
    "c_dim": "c_dim",
    "w_dim": "w_dim",
    "resolution": "img_resolution",
    "img_channels": "img_channels",
}
SYNTHESIS = {
    StyleGAN2Generator: ("channel_base", "channel_max", "conv_clamp"),
    StyleGAN3Generator: (
        "channel_base", "channel_max", "num_layers", "num_critical", "margin_size", "conv_kernel",
        "use_radial_filters", "conv_clamp",
    ),
}  # fmt: skip


def export_state(
    generator: StyleGANGenerator | StyleGAN2Generator | StyleGAN3Generator,
) -> dict[str, Any]:
    """The dictionary of the file.

    Raises:
        ConfigError: a StyleGAN (v1), for which NVIDIA has no PyTorch code.
    """
    if isinstance(generator, StyleGANGenerator):
        raise ConfigError(
            explain("--to nvidia-state, and a StyleGAN (v1)", "a StyleGAN2 or StyleGAN3: NVIDIA's "
                    "PyTorch code has no StyleGAN (v1)",
                    "export with --to safetensors, onnx or torch-export, which take any generator")
        )  # fmt: skip
    a = generator.architecture
    arguments: dict[str, Any] = {theirs: a[ours] for ours, theirs in SHARED.items()}
    arguments["mapping_kwargs"] = {"num_layers": a["mapping_layers"]}
    if a.get("mapping_width") is not None:
        arguments["mapping_kwargs"]["layer_features"] = a["mapping_width"]
    synthesis = {name: a[name] for name in SYNTHESIS[type(generator)]} | {"num_fp16_res": 0}
    content = {
        "G_ema": {k: v.detach().cpu().contiguous() for k, v in generator.state_dict().items()},
        "class": next(name for name, kind in CLASSES.items() if isinstance(generator, kind)),
        "init_kwargs": arguments | synthesis,
    }
    if isinstance(generator, StyleGAN2Generator):
        nested = arguments | {"synthesis_kwargs": synthesis}
        content["stylegan2_ada"] = {"class": ADA, "init_kwargs": nested}
    return content


def is_state(content: Mapping[str, Any]) -> bool:
    """Whether a torch file is one of these."""
    return {"G_ema", "class", "init_kwargs"} <= set(content)


def import_state(content: Mapping[str, Any]) -> StyleGAN2Generator | StyleGAN3Generator:
    """The generator of a file.

    Raises:
        WeightsError: another class, settings of another form, or tensors that do not fit.
    """
    name, given = content["class"], content["init_kwargs"]
    kind = CLASSES.get(name) if type(name) is str else None
    fault = None if kind is not None else f"the class {shown(name)}"
    try:
        assert kind is not None
        flat = {**given, **given.get("synthesis_kwargs", {})}
        architecture = {ours: flat[theirs] for ours, theirs in SHARED.items()}
        architecture |= {name: flat[name] for name in SYNTHESIS[kind]}
        architecture["mapping_layers"] = given["mapping_kwargs"]["num_layers"]
        if (width := given["mapping_kwargs"].get("layer_features")) is not None:
            architecture["mapping_width"] = width
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        missing = isinstance(error, KeyError)
        fault = fault or (f"settings without {error}" if missing else reason_of(error))
    if fault is not None or kind is None:
        raise WeightsError(
            explain(f"a file of NVIDIA's state with {fault}", f"one of {', '.join(CLASSES)}",
                    "write it again with ganinv export --to nvidia-state")
        )  # fmt: skip
    return filled(kind, architecture, content["G_ema"], "G_ema")
