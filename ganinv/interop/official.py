"""Checkpoints that the released code of pSp, e4e and ReStyle opens unmodified.

    file    {"state_dict": encoder.* and decoder.*, "latent_avg": [L,512], "opts": plain values}

The encoder's keys are ours; the generator goes from NVIDIA's layout to rosinality's, with every
buffer. `opts.encoder_type` alone says which class the weights are of: pSp's and e4e's have equal
keys and shapes, and each would load as the other and give other codes. An encoder is therefore
written under its own name or not at all.

    here                      pSp                                       e4e                      ReStyle
    GradualStyleEncoder       GradualStyleEncoder                       GradualStyleEncoder      -
    Encoder4Editing           -                                         Encoder4Editing          -
    WEncoder                  BackboneEncoderUsingLastLayerIntoW        SingleStyleCodeEncoder   -
    WPlusEncoder              BackboneEncoderUsingLastLayerIntoWPlus    -                        -
    ReStyleEncoder            -                                         -                        BackboneEncoder
    ReStyleEncoder4Editing    -                                         -                        ProgressiveBackboneEncoder
    ReStyleResNetEncoder      -                                         -                        ResNetBackboneEncoder
    ReStyleResNetEncoder4...  -                                         -                        ResNetProgressiveBackboneEncoder

All three build the generator of 512 wide codes, 8 mapping layers and channel multiplier 2, and
trunks of IR-SE50 or ResNet-34: what does not fit is refused.
"""  # noqa: E501

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.core.latent import repeat_w
from ganinv.core.safe.io import write_atomic
from ganinv.generator.importer import rosinality
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.inversion.model import Model

WIDTH, MAPPING_LAYERS, MAX_RESOLUTION = 512, 8, 1024
W_CODES = "BackboneEncoderUsingLastLayerIntoW"  # pSp adds a [1,512] average to its [B,512] codes
CLAMP_SAMPLES, CLAMP_TOLERANCE = 2, 1e-4  # images compared, relative difference


@dataclass(frozen=True)
class Target:
    """One released code base."""

    repository: str
    encoders: dict[str, str]  # our class -> its name there
    datasets: tuple[str, ...]  # names its scripts know; the first fits squares
    wide: str | None  # the one for images of 192 x 256 px


TARGETS = {
    "psp": Target(
        repository="eladrich/pixel2style2pixel",
        encoders={
            "GradualStyleEncoder": "GradualStyleEncoder",
            "WEncoder": W_CODES,
            "WPlusEncoder": "BackboneEncoderUsingLastLayerIntoWPlus",
        },
        datasets=(
            "ffhq_encode", "ffhq_frontalize", "celebs_sketch_to_face", "celebs_seg_to_face",
            "celebs_super_resolution",
        ),
        wide=None,
    ),
    "e4e": Target(
        repository="omertov/encoder4editing",
        encoders={
            "Encoder4Editing": "Encoder4Editing",
            "GradualStyleEncoder": "GradualStyleEncoder",
            "WEncoder": "SingleStyleCodeEncoder",
        },
        datasets=("ffhq_encode", "cars_encode", "horse_encode", "church_encode", "cats_encode"),
        wide="cars_encode",
    ),
    "restyle": Target(
        repository="yuval-alaluf/restyle-encoder",
        encoders={
            "ReStyleEncoder": "BackboneEncoder",
            "ReStyleEncoder4Editing": "ProgressiveBackboneEncoder",
            "ReStyleResNetEncoder": "ResNetBackboneEncoder",
            "ReStyleResNetEncoder4Editing": "ResNetProgressiveBackboneEncoder",
        },
        datasets=(
            "ffhq_encode", "cars_encode", "horse_encode", "church_encode", "afhq_wild_encode",
            "toonify",
        ),
        wide="cars_encode",
    ),
}  # fmt: skip


def content(
    model: Model, name: str, dataset_type: str | None = None, was: str | None = None
) -> dict[str, Any]:
    """The dictionary of the file, nothing copied that need not be.

    Args:
        model: what to write.
        name: a key of TARGETS.
        dataset_type: what the target's scripts call the images; None takes `was`, if the target
            knows it and it is of the model's image size, else chooses by the size.
        was: what the released checkpoint called them from which the model was imported.

    Raises:
        ConfigError: a model that the target cannot represent; says why.
    """
    target = TARGETS[name]
    check_exportable(model, name)
    dataset_type = _dataset_type(model, name, dataset_type, was)
    generator = model.G
    assert isinstance(generator, StyleGAN2Generator)
    state = {f"encoder.{k}": _plain(v) for k, v in model.E.state_dict().items()}
    state |= {f"decoder.{k}": _plain(v) for k, v in rosinality.export_state(generator).items()}
    encoder_type = target.encoders[model.kind]
    layers = 1 if encoder_type == W_CODES else model.num_ws
    average = repeat_w(generator.w_avg[None], layers)[0]
    return {
        "state_dict": state,
        "latent_avg": _plain(average).clone(),
        "opts": options(model, encoder_type, dataset_type),
    }


def write(
    path: Path, model: Model, name: str, dataset_type: str | None = None, was: str | None = None
) -> None:
    """Write the file, atomically. Arguments and errors as `content`."""
    buffer = io.BytesIO()
    torch.save(content(model, name, dataset_type, was), buffer)
    write_atomic(path, buffer.getvalue())


def _plain(tensor: Tensor) -> Tensor:
    """As the readers, some of torch 1.6, expect it: on the CPU, contiguous, no Parameter."""
    value = tensor.detach() if tensor.is_meta else tensor.detach().cpu()
    value = value.float() if value.is_floating_point() else value
    return value.contiguous()


def options(model: Model, encoder_type: str, dataset_type: str) -> dict[str, Any]:
    """`opts`: the union of what the three constructors, forward passes and scripts read. The values
    of a training that was none of theirs are their defaults."""
    resolution = model.G.resolution
    steps = {"n_iters_per_batch": model.refinements} if model.refinements else {}
    return steps | {
        "encoder_type": encoder_type,
        "dataset_type": dataset_type,
        "output_size": resolution,
        "stylegan_size": resolution,
        "n_styles": model.num_ws,
        "input_nc": model.input_nc,
        "label_nc": 0 if model.task.channels == 3 else model.task.channels,
        "learn_in_w": encoder_type == W_CODES,
        "start_from_latent_avg": model.start_from_w_avg,
        "device": "cuda:0",
        "checkpoint_path": None,
        "stylegan_weights": None,
        "exp_dir": "",
        "train_decoder": False,
        "resize_factors": None,
        "batch_size": 8,
        "test_batch_size": 8,
        "workers": 4,
        "test_workers": 4,
        "learning_rate": 1e-4,
        "optim_name": "ranger",
        "l2_lambda": 1.0,
        "lpips_lambda": 0.8,
        "id_lambda": 0.1,
        "moco_lambda": 0.0,
        "w_norm_lambda": 0.0,
        "max_steps": 500_000,
        "image_interval": 100,
        "board_interval": 50,
        "val_interval": 1000,
        "save_interval": None,
    }


# ------------------------------------------------------------------ what a target cannot represent


def check_exportable(model: Model, name: str) -> None:
    """Refuse to write a model that the target's code base cannot open.

    Raises:
        ConfigError: the first reason.
    """
    if (reason := _fault(model, name)) is not None:
        raise ConfigError(
            explain(
                f"--to {name}, and {reason[0]}",
                f"{reason[1]}: {TARGETS[name].repository} builds nothing else",
                advice(model),
            )
        )


Reason = tuple[str, str]  # given, expected


def advice(model: Model) -> str:
    """How to export a model: a released code base that opens it, or what takes any model."""
    fits = next((name for name in TARGETS if _fault(model, name) is None), None)
    if fits is not None:
        return f"export with --to {fits}"
    return "export with --to safetensors, onnx or torch-export, which take any model"


def _fault(model: Model, name: str) -> Reason | None:
    return _encoder_fault(model, name) or _generator_fault(model.G)


def _encoder_fault(model: Model, name: str) -> Reason | None:
    target, kind = TARGETS[name], model.kind
    if kind not in target.encoders:
        return (
            f"an encoder of class {kind}, which has no class there (relabelled, it would load and "
            "give other codes)",
            f"one of {', '.join(target.encoders)}",
        )
    if (trunk := model.architecture.get("trunk", "ir_se50")) != "ir_se50":
        return f"an encoder on the trunk {trunk}", "the trunk ir_se50"
    if target.wide is None and model.input_size != (256, 256):
        height, width = model.input_size
        return f"images of {height} x {width} px", "256 x 256 px"
    if name != "psp" and model.task.channels != 3:
        given = f"an encoder of {model.task.channels} image channels"
        return given, "3, RGB"
    if name == "restyle" and not model.start_from_w_avg:
        return "absolute codes (start_from_w_avg: false)", "offsets from the average"
    return None


def _generator_fault(generator: torch.nn.Module) -> Reason | None:
    expected = "an unconditional StyleGAN2 in RGB of up to 1024 px"
    if not isinstance(generator, StyleGAN2Generator):
        return f"a {type(generator).__name__}", expected
    a = generator.architecture
    if a["c_dim"] or a["img_channels"] != 3 or generator.resolution > MAX_RESOLUTION:
        given = f"c_dim={a['c_dim']}, {a['img_channels']} channels, {generator.resolution} px"
        return f"a generator of {given}", expected
    widths = (a["z_dim"], a["w_dim"], a["mapping_layers"], a["mapping_width"] or a["w_dim"])
    if widths != (WIDTH, WIDTH, MAPPING_LAYERS, WIDTH):
        return (
            "a generator of z_dim={}, w_dim={}, mapping_layers={}, mapping_width={}".format(
                *widths
            ),
            f"{WIDTH}, {WIDTH}, {MAPPING_LAYERS} and {WIDTH}",
        )
    for size, channels in generator.synthesis.channels.items():
        fixed = min(32768 // size, 512)
        if channels != fixed:
            return (
                f"a generator of {channels} channels at {size} px",
                f"{fixed} (channel multiplier 2, fixed in the code)",
            )
    if (difference := clamp_difference(generator)) > CLAMP_TOLERANCE:
        return (
            f"a generator whose conv_clamp={a['conv_clamp']} changes its images (by "
            f"{difference:.1e})",
            "no clamp: the layout has none",
        )
    return None


@torch.no_grad()
def clamp_difference(generator: StyleGAN2Generator) -> float:
    """How far a few images move when the clamp of activations, which the rosinality layout lacks,
    is taken away; relative, 0 for a generator without one."""
    if generator.architecture["conv_clamp"] is None:
        return 0.0
    free = rosinality.import_state(rosinality.export_state(generator), generator.w_avg).eval()
    z = torch.randn(CLAMP_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(0))
    wp = repeat_w(generator.mapping(z.to(generator.w_avg.device)), generator.num_ws)
    image = generator.synthesis(wp, noise="const")
    other = free.to(image.device).synthesis(wp, noise="const")
    return float((image - other).norm() / image.norm())


def _dataset_type(model: Model, name: str, given: str | None, was: str | None) -> str:
    target, wide = TARGETS[name], model.input_size != (256, 256)
    if given is None:
        if was is not None and was in target.datasets and (was == target.wide) == wide:
            return was
        return target.wide if wide and target.wide else target.datasets[0]
    if given not in target.datasets:
        raise ConfigError(
            explain(f"--dataset-type {given}", f"one of {', '.join(target.datasets)}, the names "
                    f"that {target.repository} knows", "choose one, or leave it out")
        )  # fmt: skip
    return given
