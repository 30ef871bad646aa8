"""rosinality's StyleGAN2 layout, the `.pt` that pSp, e4e and ReStyle embed: a table of names.

    file:  {"g_ema": state dict, "latent_avg": [D]}, or a training file: g, d, g_ema, no average
    names: ours (NVIDIA's) <-> theirs; all weights equal, only leading dimensions of one are added.
           Neither layout needs its up-convolutions flipped: both store them as PyTorch's transposed
           convolution reads them.

FIR kernels are constants of the architecture (theirs hold the gain of the upsampling): made, not
read.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import WeightsError, explain
from ganinv.core.network import MALFORMED, filled, state_of
from ganinv.core.op import setup_filter
from ganinv.generator.stylegan2 import StyleGAN2Generator

MAX_RESOLUTION = 1 << 13  # px
MAX_DRAWN = 1 << 10  # px up to which noise maps that a file lacks are drawn
MAX_MAPPING = 1 << 23  # weights of a mapping network of which 10,000 w are drawn; four of FFHQ's


def names(resolution: int, mapping_layers: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """our key -> (their key, their leading dimensions of size one).

    Args:
        resolution: R in px.
        mapping_layers: dense layers of the mapping network.
    """
    table: dict[str, tuple[str, tuple[int, ...]]] = {"synthesis.b4.const": ("input.input", (1,))}
    for i in range(mapping_layers):
        for part in ("weight", "bias"):
            table[f"mapping.fc{i}.{part}"] = (f"style.{i + 1}.{part}", ())
    for k in range(2, int(math.log2(resolution)) + 1):
        block, j = f"synthesis.b{2**k}", k - 3  # b8 is their convs.0 and convs.1
        layers = [("conv1", "conv1" if k == 2 else f"convs.{2 * j + 1}", 2 * j + 2)]
        if k > 2:
            layers.append(("conv0", f"convs.{2 * j}", 2 * j + 1))
        for ours, theirs, noise in layers:
            table[f"{block}.{ours}.weight"] = (f"{theirs}.conv.weight", (1,))
            table[f"{block}.{ours}.bias"] = (f"{theirs}.activate.bias", ())
            table[f"{block}.{ours}.noise_strength"] = (f"{theirs}.noise.weight", (1,))
            table[f"{block}.{ours}.noise_const"] = (f"noises.noise_{noise}", (1, 1))
            for part in ("weight", "bias"):
                style = f"{theirs}.conv.modulation.{part}"
                table[f"{block}.{ours}.affine.{part}"] = (style, ())
        rgb = "to_rgb1" if k == 2 else f"to_rgbs.{j}"
        table[f"{block}.torgb.weight"] = (f"{rgb}.conv.weight", (1,))
        table[f"{block}.torgb.bias"] = (f"{rgb}.bias", (1, -1, 1, 1))
        for part in ("weight", "bias"):
            table[f"{block}.torgb.affine.{part}"] = (f"{rgb}.conv.modulation.{part}", ())
    return table


def discriminator_names(resolution: int) -> dict[str, str]:
    """Our key -> their key, for `ganinv.discriminator.stylegan2`; no weight changes its shape."""
    table: dict[str, str] = {}
    blocks = int(math.log2(resolution)) - 2  # convs.1 is the block at full resolution
    for i in range(1, blocks + 1):
        ours, theirs = f"b{resolution >> (i - 1)}", f"convs.{i}"
        table[f"{ours}.conv0.weight"] = f"{theirs}.conv1.0.weight"
        table[f"{ours}.conv0.bias"] = f"{theirs}.conv1.1.bias"
        table[f"{ours}.conv1.weight"] = f"{theirs}.conv2.1.weight"
        table[f"{ours}.conv1.bias"] = f"{theirs}.conv2.2.bias"
        table[f"{ours}.skip.weight"] = f"{theirs}.skip.1.weight"
    for ours, theirs in ((f"b{resolution}.fromrgb", "convs.0"), ("b4.conv", "final_conv")):
        table[f"{ours}.weight"] = f"{theirs}.0.weight"
        table[f"{ours}.bias"] = f"{theirs}.1.bias"
    for part in ("weight", "bias"):
        table[f"b4.fc.{part}"] = f"final_linear.0.{part}"
        table[f"b4.out.{part}"] = f"final_linear.1.{part}"
    return table


def architecture_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of the generator that a rosinality state dict describes.

    Raises:
        WeightsError: the state dict is not one of this layout.
    """
    try:
        convs = [int(m[1]) for key in state if (m := re.match(r"convs\.(\d+)\.conv\.weight", key))]
        layers = [int(m[1]) for key in state if (m := re.match(r"style\.(\d+)\.weight", key))]
        resolution = 2 ** (len(convs) // 2 + 2)
        channels = {4: state["input.input"].shape[1]}
        for j in range(len(convs) // 2):
            channels[8 * 2**j] = state[f"convs.{2 * j}.conv.weight"].shape[1]
        w_dim, z_dim = state["style.1.weight"].shape
        if not 8 <= resolution <= MAX_RESOLUTION:
            raise ValueError(f"blocks of a usual number ({len(convs)} convolutions)")
    except MALFORMED as error:
        raise WeightsError(
            explain(
                f"a state dict without {_missing(error)}",
                "a rosinality StyleGAN2 (style.*, input.input, conv1, convs.*, to_rgbs.*)",
                "pass the generator file itself",
            )
        ) from error
    return {
        "z_dim": z_dim,
        "c_dim": 0,
        "w_dim": w_dim,
        "resolution": resolution,
        "img_channels": state["to_rgb1.conv.weight"].shape[1],
        "mapping_layers": len(layers),
        "channel_base": channels[resolution] * resolution,
        "channel_max": max(channels.values()),
        "conv_clamp": None,
    }


def _missing(error: Exception) -> str:
    """The key that is not there, or the tensors whose shapes are none of this layout."""
    return str(error) if isinstance(error, KeyError | ValueError) else "tensors of usual shapes"


def import_state(state: dict[str, Tensor], latent_avg: Tensor | None) -> StyleGAN2Generator:
    """Their `g_ema` state dict -> our generator; a missing average is estimated from 10,000 w.

    Old files have no noise maps. They are then drawn with a seed made of the file's own weights, so
    that every load of a file, on every rank, gives the same generator.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    state = state_of(state, "a rosinality StyleGAN2")
    architecture = architecture_of(state)
    with torch.device("meta"):  # shapes only: no memory for what the file does not fill
        empty = StyleGAN2Generator(**architecture).state_dict()
    read: dict[str, Tensor] = {}
    for key, (theirs, _) in names(
        architecture["resolution"], architecture["mapping_layers"]
    ).items():
        if theirs not in state:
            if key.endswith("noise_const") and architecture["resolution"] <= MAX_DRAWN:
                read[key] = _noise_map(key, empty[key].shape, state["input.input"])
                continue
            raise WeightsError(f"the file has no {theirs}; expected a complete g_ema state dict")
        if state[theirs].numel() != empty[key].numel():
            raise WeightsError(
                f"{theirs} has shape {tuple(state[theirs].shape)}; "
                f"expected {tuple(empty[key].shape)} up to leading ones"
            )
        read[key] = state[theirs].reshape(empty[key].shape)
    made = {k: setup_filter() for k in empty if k not in read and k.endswith("resample_filter")}
    average = {"mapping.w_avg": torch.zeros(architecture["w_dim"])}
    source = "a rosinality StyleGAN2"
    generator = filled(StyleGAN2Generator, architecture, {**average, **made, **read}, source)
    latent_avg = _average_w(generator) if latent_avg is None else latent_avg
    if latent_avg.ndim == 0 or latent_avg.numel() == 0 or latent_avg.shape[-1] != generator.w_dim:
        raise WeightsError(
            f"latent_avg has shape {tuple(latent_avg.shape)}; expected [{generator.w_dim}], the "
            "average w. To fix: pass the file that the training wrote"
        )
    w_avg = latent_avg.reshape(-1, generator.w_dim)[0]
    if not bool(w_avg.isfinite().all()):
        raise WeightsError("latent_avg is not finite; expected the average w of a trained network")
    generator.mapping.w_avg.copy_(w_avg)
    return generator


@torch.no_grad()
def _average_w(generator: StyleGAN2Generator) -> Tensor:
    """The mean of 10,000 w."""
    if sum(weight.numel() for weight in generator.mapping.parameters()) > MAX_MAPPING:
        raise WeightsError(
            "a file without latent_avg, and a mapping network too large to estimate it; expected "
            "both. To fix: store the average w under 'latent_avg'"
        )
    z = torch.randn(10_000, generator.z_dim, generator=torch.Generator().manual_seed(0))
    return torch.cat([generator.mapping(part) for part in z.split(1000)]).mean(0)


def _noise_map(key: str, shape: torch.Size, constant: Tensor) -> Tensor:
    """N(0, 1), a function of the layer's name and of the file's learned constant."""
    numbers = constant.detach().float().contiguous().numpy().tobytes()
    seed = int.from_bytes(hashlib.sha256(key.encode() + numbers).digest()[:7], "little")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def export_state(generator: StyleGAN2Generator) -> dict[str, Tensor]:
    """Our generator -> their complete `g_ema` state dict, buffers included (`latent_avg` is w_avg).

    Raises:
        WeightsError: a conditional generator, or a mapping network of another width than w, which
            the layout cannot hold.
    """
    if (width := generator.architecture["mapping_width"]) is not None:
        raise WeightsError(
            f"a generator of mapping_width={width}; expected {generator.w_dim}, the width of w, as "
            "the rosinality layout has it. To fix: ganinv export --to nvidia-state"
        )
    if generator.architecture["c_dim"]:
        raise WeightsError(
            "a conditional generator; expected an unconditional one: the rosinality "
            "layout has no labels"
        )
    state: dict[str, Tensor] = {}
    ours = generator.state_dict()
    for key, (theirs, lead) in names(
        generator.resolution, generator.architecture["mapping_layers"]
    ).items():
        value = ours[key]
        shape = lead if -1 in lead else (*lead, *value.shape)
        state[theirs] = value.reshape(shape).contiguous()
    kernel = setup_filter() * 4
    for j in range(int(math.log2(generator.resolution)) - 2):
        state[f"convs.{2 * j}.conv.blur.kernel"] = kernel.clone()
        state[f"to_rgbs.{j}.upsample.kernel"] = kernel.clone()
    return state


def import_discriminator(state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Their `d` state dict -> constructor arguments and state dict of our
    `StyleGAN2Discriminator`.

    Raises:
        WeightsError: a tensor is missing.
    """
    state = state_of(state, "a rosinality discriminator")
    blocks = sum(bool(re.match(r"convs\.\d+\.skip\.1\.weight", key)) for key in state)
    resolution = 2 ** (min(blocks, 11) + 2)
    table = discriminator_names(resolution)
    missing = [theirs for theirs in table.values() if theirs not in state]
    flat = [theirs for theirs in table.values() if theirs in state and not state[theirs].ndim]
    if blocks == 0 or missing or flat:
        raise WeightsError(
            explain(
                f"a state dict without {[*missing, *flat][0] if blocks else 'convs.*'}",
                "a rosinality discriminator (convs.*, final_conv, final_linear)",
                "pass the file that holds 'd'",
            )
        )
    ours = {key: state[theirs] for key, theirs in table.items()}
    for key in list(ours):
        layer, _, part = key.rpartition(".")
        if part == "weight" and ours[key].ndim == 4:
            ours[f"{layer}.resample_filter"] = setup_filter()
    for i in range(blocks):
        ours[f"b{resolution >> i}.resample_filter"] = setup_filter()
    channels = [state["convs.0.0.weight"].shape[0]]
    channels += [state[f"convs.{i}.conv2.1.weight"].shape[0] for i in range(1, blocks + 1)]
    architecture = {
        "c_dim": 0,
        "resolution": resolution,
        "img_channels": state["convs.0.0.weight"].shape[1],
        "channel_base": channels[0] * resolution,
        "channel_max": max(channels),
        "conv_clamp": None,
        "mbstd_group_size": 4,
    }
    return architecture, ours


def export_discriminator(ours: dict[str, Tensor], resolution: int) -> dict[str, Tensor]:
    """The state dict of our unconditional `StyleGAN2Discriminator` -> their complete `d`."""
    state = {theirs: ours[key] for key, theirs in discriminator_names(resolution).items()}
    for i in range(1, int(math.log2(resolution)) - 1):
        state[f"convs.{i}.conv2.0.kernel"] = setup_filter()
        state[f"convs.{i}.skip.0.kernel"] = setup_filter()
    return state
