"""StyleGAN (v1) in genforce's two layouts: two tables of names, read both ways.

    idinvert:  the `.pth` of genforce/idinvert_pytorch (and InterFaceGAN): a bare state dict
    genforce:  the `.pth` of genforce/genforce: {"generator_smooth": state dict, "discriminator":
               state dict, ...}, also one level down under "models"

Weights are equal; leading dimensions of one are added, and the fused up-convolutions (R >= 128 px)
of the idinvert layout are stored [3,3,Ci,Co]. Blur kernels are constants of the architecture: made,
not read. Neither layout records the tanh at the end of the network: all published layer-wise
generators of the idinvert layout have it, no other one has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ganinv.core.errors import WeightsError, explain, named
from ganinv.core.latent import num_ws
from ganinv.core.network import MALFORMED, filled, settings_fault, state_of
from ganinv.core.op import setup_filter
from ganinv.generator.stylegan import FUSED_FROM, StyleGANGenerator

Layout = Literal["idinvert", "genforce"]
Table = dict[str, tuple[str, str]]  # our key -> (their key, kind of array, see TO_OURS)

TO_OURS: dict[str, Callable[[Tensor], Tensor]] = {  # how an array of theirs becomes ours
    "equal": lambda x: x,
    "lead1": lambda x: x[0],
    "lead2": lambda x: x[0, 0],
    "hwio": lambda x: x.permute(3, 2, 0, 1),
}
TO_THEIRS: dict[str, Callable[[Tensor], Tensor]] = {
    "equal": lambda x: x,
    "lead1": lambda x: x[None],
    "lead2": lambda x: x[None, None],
    "hwio": lambda x: x.permute(2, 3, 1, 0),
}
TRUNCATION = (
    0.7,
    8,
)  # psi and layers of the idinvert layout's constant, which its reader overwrites


def layout_of(state: dict[str, Tensor]) -> Layout | None:
    """Which of the two layouts a generator's state dict has; None for neither."""
    if "synthesis.layer0.epilogue.bias" in state:
        return "idinvert"
    return "genforce" if "synthesis.layer0.apply_noise.weight" in state else None


def names(resolution: int, mapping_layers: int, layout: Layout) -> Table:
    """The generator's table, w_avg and constants left out.

    Args:
        resolution: R in px.
        mapping_layers: dense layers of the mapping network.
        layout: whose keys.
    """
    old = layout == "idinvert"
    weight, bias = (".fc.weight", ".wscale.bias") if old else (".weight", ".bias")
    conv, tail = (".conv.weight", ".epilogue") if old else (".weight", "")
    style = ".epilogue.style_mod.dense" if old else ".style"
    table: Table = {"synthesis.b4.const": ("synthesis.layer0.const", "lead1")}
    for i in range(mapping_layers):
        table[f"mapping.fc{i}.weight"] = (f"mapping.dense{i}{weight}", "equal")
        table[f"mapping.fc{i}.bias"] = (f"mapping.dense{i}{bias}", "equal")
    for i in range(num_ws(resolution)):
        size = 4 * 2 ** (i // 2)
        ours, theirs = f"synthesis.b{size}.layer{i % 2}", f"synthesis.layer{i}"
        if old and i % 2 == 0 and size >= FUSED_FROM:
            table[f"{ours}.weight"] = (f"{theirs}.weight", "hwio")
        elif i > 0:
            table[f"{ours}.weight"] = (f"{theirs}{conv}", "equal")
        table[f"{ours}.bias"] = (f"{theirs}{tail}.bias", "equal")
        table[f"{ours}.noise_strength"] = (f"{theirs}{tail}.apply_noise.weight", "equal")
        table[f"{ours}.noise_const"] = (f"{theirs}{tail}.apply_noise.noise", "lead2")
        table[f"{ours}.affine.weight"] = (f"{theirs}{style}{weight}", "equal")
        table[f"{ours}.affine.bias"] = (f"{theirs}{style}{bias}", "equal")
        if i % 2:
            rgb = f"synthesis.output{i // 2}"
            table[f"synthesis.b{size}.torgb.weight"] = (f"{rgb}{conv}", "equal")
            table[f"synthesis.b{size}.torgb.bias"] = (f"{rgb}.bias", "equal")
    return table


def architecture_of(state: dict[str, Tensor], layout: Layout) -> dict[str, Any]:
    """Constructor arguments of the generator that a state dict of this layout describes.

    Raises:
        WeightsError: the state dict is incomplete.
    """
    dense = ".fc.weight" if layout == "idinvert" else ".weight"
    tail = ".epilogue" if layout == "idinvert" else ""
    blocks = sum(key.startswith("synthesis.output") and key.endswith(".bias") for key in state)
    layers = sum(key.startswith("mapping.dense") and key.endswith(dense) for key in state)
    resolution = 2 ** (min(blocks, 12) + 1)
    try:
        channels = [state[f"synthesis.layer{2 * k}{tail}.bias"].numel() for k in range(blocks)]
        style = ".epilogue.style_mod.dense.fc.weight" if tail else ".style.weight"
        w_dim = state[f"synthesis.layer0{style}"].shape[1]
        z_dim = state[f"mapping.dense0{dense}"].shape[1]
        layerwise = state[f"mapping.dense{layers - 1}{dense}"].shape[0] != w_dim
        img_channels = state["synthesis.output0.bias"].numel()
    except MALFORMED as error:
        missing = str(error) if isinstance(error, KeyError) else "tensors of usual shapes"
        raise _incomplete(missing, layout) from error
    return {
        "z_dim": z_dim,
        "w_dim": w_dim,
        "resolution": resolution,
        "img_channels": img_channels,
        "mapping_layers": layers,
        "layerwise": layerwise,
        "channel_base": channels[-1] * resolution,
        "channel_max": max(channels),
        "final_tanh": layerwise and layout == "idinvert",
    }


def _incomplete(missing: str, layout: str) -> WeightsError:
    return WeightsError(
        explain(
            f"a state dict without {missing}",
            f"a complete StyleGAN (v1) of the {layout} layout",
            "pass the published file itself",
        )
    )


def _read(
    state: dict[str, Tensor], ours: dict[str, Tensor], table: Table, layout: str, made: set[str]
) -> dict[str, Tensor]:
    """`ours` with every tensor of the table taken from `state`; other keys than `made` refused."""
    known = {theirs for theirs, _ in table.values()}
    unknown = [k for k in state if k not in known | made and not k.endswith(".blur.kernel")]
    if unknown:
        raise WeightsError(
            explain(
                f"an unknown {named(unknown[0])}",
                f"nothing but a StyleGAN (v1) of the {layout} layout, without labels",
                "pass an unconditional network",
            )
        )
    read = dict(ours)
    for key, (theirs, kind) in table.items():
        if theirs not in state:
            raise _incomplete(theirs, layout)
        shape = TO_THEIRS[kind](ours[key]).shape
        if state[theirs].shape != shape:
            raise WeightsError(
                f"{theirs} has shape {tuple(state[theirs].shape)}; expected {tuple(shape)}"
            )
        read[key] = TO_OURS[kind](state[theirs])
    return read


def _check_grown(lod: Tensor | None) -> None:
    if lod is not None and lod.numel() and bool((lod != 0).any()):
        raise WeightsError(
            explain(
                f"a network at level of detail {lod.flatten()[:3].tolist()}",
                "0, the end of progressive growing",
                "pass the file of the finished training",
            )
        )


# ------------------------------------------------------------------ generator


def import_state(state: dict[str, Tensor], final_tanh: bool | None = None) -> StyleGANGenerator:
    """A state dict of either layout -> our generator.

    Args:
        state: the generator's state dict.
        final_tanh: whether the network ends with a tanh; None: as the published ones of its kind.

    Raises:
        WeightsError: neither layout; a tensor is missing, unknown or has another shape; a network
            that is not fully grown; layers of w_avg that differ.
    """
    state = state_of(state, "a StyleGAN (v1)")
    layout = layout_of(state)
    if layout is None:
        raise _incomplete("synthesis.layer0.*", "idinvert or genforce")
    _check_grown(state.get("synthesis.lod"))
    architecture = architecture_of(state, layout)
    if final_tanh is not None:
        architecture["final_tanh"] = final_tanh
    fault = settings_fault(StyleGANGenerator, architecture, len(state))
    if fault is not None or architecture["resolution"] < 8:
        raise _incomplete(f"usual sizes ({fault or 'of one block'})", layout)
    with torch.device("meta"):  # shapes only: no memory for what the file does not fill
        generator = StyleGANGenerator(**architecture)
    table = names(generator.resolution, architecture["mapping_layers"], layout)
    made = {"synthesis.lod", "truncation.truncation", "truncation.w_avg"}
    ours = _read(state, generator.state_dict(), table, layout, made)
    if "truncation.w_avg" not in state:
        raise _incomplete("truncation.w_avg", layout)
    average = state["truncation.w_avg"]
    if not average.numel() or average.numel() % generator.w_dim:
        raise WeightsError(
            f"truncation.w_avg of shape {list(average.shape)}; expected layers of {generator.w_dim}"
        )
    layers = average.reshape(-1, generator.w_dim)
    if not torch.equal(layers, layers[:1].expand_as(layers)):
        raise WeightsError(
            explain(
                f"a truncation.w_avg of {len(layers)} layers that differ",
                "one w for all layers: ganinv's generators have one w_avg [D]",
                "average over layer 0, as IDInvert does, and store that w in every layer",
            )
        )
    ours["mapping.w_avg"] = layers[0]
    return filled(StyleGANGenerator, architecture, ours, f"a file of the {layout} layout")


def export_state(generator: StyleGANGenerator, layout: Layout) -> dict[str, Tensor]:
    """Our generator -> a complete state dict of the given layout, constants included."""
    ours, num_ws = generator.state_dict(), generator.num_ws
    layerwise = generator.architecture["layerwise"]
    state = {
        theirs: TO_THEIRS[kind](ours[key]).contiguous()
        for key, (theirs, kind) in names(
            generator.resolution, generator.architecture["mapping_layers"], layout
        ).items()
    }
    state["synthesis.lod"] = torch.zeros([])
    state["truncation.w_avg"] = generator.w_avg.clone()
    if layout == "idinvert":
        psi = torch.ones(1, num_ws, 1)
        psi[:, : TRUNCATION[1]] = TRUNCATION[0]
        state["truncation.truncation"] = psi
    elif layerwise:
        state["truncation.w_avg"] = generator.w_avg.repeat(num_ws)
    for i in range(2, num_ws, 2):
        channels = generator.synthesis.channels[4 * 2 ** (i // 2)]
        state[f"synthesis.layer{i}.blur.kernel"] = _blur(channels)
    return state


def _blur(channels: int) -> Tensor:
    return setup_filter((1, 2, 1)).repeat(channels, 1, 1, 1)


# ------------------------------------------------------------------ discriminator


def discriminator_names(resolution: int) -> Table:
    """The table of `ganinv.discriminator.stylegan`; only the genforce layout has one."""
    table: Table = {}
    blocks = int(math.log2(resolution)) - 1
    for k in range(blocks):
        size = resolution // 2**k
        layers = ("conv", "fc") if size == 4 else ("layer0", "layer1")
        for part in ("weight", "bias"):
            table[f"b{size}.fromrgb.{part}"] = (f"input{k}.{part}", "equal")
            for i in (0, 1):
                table[f"b{size}.{layers[i]}.{part}"] = (f"layer{2 * k + i}.{part}", "equal")
    for part in ("weight", "bias"):
        table[f"b4.out.{part}"] = (f"layer{2 * blocks}.{part}", "equal")
    return table


def import_discriminator(state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A genforce discriminator -> constructor arguments and state dict of our
    `StyleGANDiscriminator`.

    Raises:
        WeightsError: not a discriminator of this layout, or one that is not fully grown.
    """
    state = state_of(state, "a StyleGAN (v1) discriminator")
    _check_grown(state.get("lod"))
    blocks = sum(key.startswith("input") and key.endswith(".bias") for key in state)
    resolution = 2 ** (blocks + 1)
    table = discriminator_names(resolution) if blocks > 1 else {}
    missing = [theirs for theirs, _ in table.values() if theirs not in state]
    wrong = [t for t, _ in table.values() if t in state and not state[t].ndim]
    missing += wrong or ([] if blocks <= 12 else ["blocks of a usual number"])
    if missing or not table:
        raise _incomplete(missing[0] if missing else "input0.*", "genforce discriminator")
    known = {theirs for theirs, _ in table.values()} | {"lod"}
    unknown = [k for k in state if k not in known and not k.endswith(".blur.kernel")]
    if unknown:
        raise WeightsError(
            f"an unknown {named(unknown[0])}; expected an unconditional discriminator"
        )
    channels = [state[f"input{k}.bias"].numel() for k in range(blocks)]
    architecture = {
        "resolution": resolution,
        "img_channels": state["input0.weight"].shape[-3] if state["input0.weight"].ndim > 2 else 0,
        "channel_base": channels[0] * resolution,
        "channel_max": max(channels),
        "mbstd_group_size": 4,  # not recorded; every published one has 4
    }
    return architecture, {key: state[theirs] for key, (theirs, _) in table.items()}


def export_discriminator(ours: dict[str, Tensor], resolution: int) -> dict[str, Tensor]:
    """The state dict of our `StyleGANDiscriminator` -> genforce's, constants included."""
    state = {theirs: ours[key] for key, (theirs, _) in discriminator_names(resolution).items()}
    state["lod"] = torch.zeros([])
    for k in range(int(math.log2(resolution)) - 2):
        channels = state[f"layer{2 * k + 1}.weight"].shape[1]
        state[f"layer{2 * k + 1}.blur.kernel"] = _blur(channels)
    return state
