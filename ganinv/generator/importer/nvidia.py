"""NVIDIA's `.pkl` files of StyleGAN2-ADA and StyleGAN3, read without running what is in them.

    file:    {"G": module, "D": module, "G_ema": module, "augment_pipe": ..., ...}, a pickle
    module:  _reconstruct_persistent_obj({"type": "class", "version": 6, "module_src": ...,
             "class_name": ..., "state": its __dict__}), again for every module inside it

NVIDIA's own loader executes `module_src`, Python source that the file brings along. Here it is left
unread: the class name says which of ganinv's networks is meant, the constructor's arguments
(`_init_kwargs`) and the layers' attributes say of what size, and the tensors fill it under the keys
they have there. Arguments that would make another network are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from ganinv.core.errors import WeightsError, explain, shown
from ganinv.core.network import filled
from ganinv.core.safe.io import read_bytes
from ganinv.core.safe.torch_file import LEGACY
from ganinv.core.safe.unpickle import Allowed, Machine, Names, Unreadable
from ganinv.core.safe.unpickle_tensors import StoredTensor, tensor_names
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator

VERSION = 6  # of the module records, the only one that NVIDIA's loader takes
CLASSES = frozenset(
    "Generator MappingNetwork SynthesisNetwork SynthesisBlock SynthesisLayer SynthesisInput "
    "ToRGBLayer FullyConnectedLayer Conv2dLayer Discriminator DiscriminatorBlock "
    "DiscriminatorEpilogue MinibatchStdLayer AugmentPipe".split()
)
MAX_DEPTH, MAX_PARTS = 8, 20_000  # the deepest has 4 levels, the largest some 500 parts
MAX_SETTING, MAX_RESOLUTION = 1 << 20, 1 << 13
MAX_KEY = 100  # characters of a tensor's or a module's name
MAX_BYTES = 4 << 30  # of a file; the largest that NVIDIA publishes have 0.4 GB

GROUP = "mbstd_group_size"

ANY_VALUE = frozenset(  # arguments read from shapes and attributes, or without effect in eval mode
    "c_dim z_dim w_dim img_resolution img_channels mapping_kwargs synthesis_kwargs block_kwargs "
    "epilogue_kwargs num_layers channel_base channel_max num_fp16_res conv_clamp "
    "fp16_channels_last fused_modconv_default w_avg_beta magnitude_ema_beta num_critical "
    "margin_size conv_kernel use_radial_filters mbstd_group_size freeze_layers cmap_dim "
    "embed_features layer_features".split()
)
ONE_VALUE = {  # arguments of which ganinv's networks know one value
    "architecture": ("skip", "resnet"),  # G's and D's; another one shows in the keys
    "activation": ("lrelu",),
    "lr_multiplier": (0.01,),
    "use_noise": (True,),
    "resample_filter": ([1, 3, 3, 1], (1, 3, 3, 1)),
    "mbstd_num_channels": (1,),
    "first_cutoff": (2,),
    "first_stopband": (2**2.1,),
    "last_stopband_rel": (2**0.3,),
    "output_scale": (0.25,),
    "filter_size": (6,),
    "lrelu_upsampling": (2,),
}


@dataclass(frozen=True, slots=True)
class Module:
    """A module record: its class's name and its attributes."""

    class_name: str
    state: dict[Any, Any]


def _module(meta: Any) -> Module:
    if not isinstance(meta, dict) or (meta.get("type"), meta.get("version")) != ("class", VERSION):
        raise Unreadable(f"a module record of another form than NVIDIA's version {VERSION}")
    name, state = meta.get("class_name"), meta.get("state")
    if type(name) is not str or name not in CLASSES or not isinstance(state, dict):
        raise Unreadable(f"a module of class {shown(name)}, which is none of StyleGAN's")
    return Module(name, state)


NAMES: Names = {  # what NVIDIA's files name beside tensors
    "torch_utils.persistence._reconstruct_persistent_obj": Allowed(call=_module),
    "dnnlib.util.EasyDict": Allowed(new=lambda: {}),
    "dnnlib.EasyDict": Allowed(new=lambda: {}),
}


def is_pickle(path: Path) -> bool:
    """Whether a file is a bare pickle, and neither of torch's formats."""
    head = read_bytes(path, 1 << 60, first=len(LEGACY))
    return head[:1] == b"\x80" and head != LEGACY


def read(path: Path) -> dict[Any, Any]:
    """The file's dictionary, every module a `Module` and every tensor a `StoredTensor`.

    Raises:
        WeightsMissing: no such file.
        WeightsError: it holds more than data, or breaks off; says what and where.
    """
    data = read_bytes(path, MAX_BYTES)
    try:
        content = Machine(memoryview(data), {**tensor_names(len(data)), **NAMES}).load()
    except Unreadable as error:
        todo = "pass the file that NVIDIA publishes, or one saved by its training code"
        if "dnnlib.tflib" in str(error):
            todo = (
                "this is a TensorFlow network: convert it with legacy.py of stylegan2-ada-pytorch"
            )
        raise WeightsError(
            explain(
                f"{path} was refused: {error}",
                "tensors and settings of a StyleGAN2-ADA or StyleGAN3 (ganinv never runs code "
                "stored in a file)",
                todo,
            )
        ) from None
    found = as_dictionary(content)
    if found is None:
        raise WeightsError(f"{path} holds {shown(content)}; expected NVIDIA's dictionary")
    return found


def as_dictionary(content: Any) -> dict[Any, Any] | None:
    """What a file holds in the form of NVIDIA's: a generator alone (PTI's `torch.save(G)`) stands
    for {"G_ema": G}. None: something else.
    """
    if type(content) is Module:
        return {"D" if content.class_name == "Discriminator" else "G_ema": content}
    return content if isinstance(content, dict) else None


def has_modules(content: Any) -> bool:
    """Whether a torch file holds networks of NVIDIA's, not tensors alone."""
    found = as_dictionary(content) or {}
    return any(type(found.get(name)) is Module for name in ("G_ema", "G", "D"))


# ------------------------------------------------------------------ from records to tensors


def _members(module: Module, name: str) -> dict[str, Any]:
    members = module.state.get(name, {})
    if not isinstance(members, dict) or not all(
        type(key) is str and len(key) <= MAX_KEY for key in members
    ):
        raise Unreadable(f"a {module.class_name} whose {name} have no plain names")
    return members


def _tensors(
    module: Module, prefix: str, depth: int, parts: Iterator[int]
) -> Iterator[tuple[str, StoredTensor | Tensor]]:
    if depth > MAX_DEPTH or next(parts) > MAX_PARTS:
        raise Unreadable("modules inside modules without end")
    skipped = module.state.get("_non_persistent_buffers_set")
    skipped = skipped if type(skipped) is set else set()
    for kind in ("_parameters", "_buffers"):
        for name, value in _members(module, kind).items():
            if next(parts) > MAX_PARTS:
                raise Unreadable("tensors without end")
            if value is None or (kind == "_buffers" and name in skipped):
                continue
            if type(value) not in (StoredTensor, Tensor):
                raise Unreadable(f"{prefix}{name[:60]}, which is no tensor")
            yield prefix + name, value
    for name, value in _members(module, "_modules").items():
        if type(value) is not Module:
            raise Unreadable(f"{prefix}{name[:60]}, which is no module")
        yield from _tensors(value, f"{prefix}{name}.", depth + 1, parts)


def state_dict(module: Module) -> dict[str, Tensor]:
    """The tensors of a module under NVIDIA's keys.

    Raises:
        WeightsError: the records do not form a tree of modules, or share storages.
    """
    try:
        found = dict(_tensors(module, "", 0, count()))
        storages = {_storage(tensor) for tensor in found.values() if tensor.nbytes}
        if len(storages) != sum(tensor.nbytes > 0 for tensor in found.values()):
            raise Unreadable(f"{len(found)} tensors in {len(storages)} storages")
    except Unreadable as error:
        raise WeightsError(
            explain(f"a module record with {error}", "one of NVIDIA's networks", "check the file")
        ) from None
    return {
        key: value.contiguous() if isinstance(value, Tensor) else value.tensor()
        for key, value in found.items()
    }


def _storage(tensor: StoredTensor | Tensor) -> int:
    """What tells whether two tensors share their numbers."""
    if isinstance(tensor, Tensor):
        return tensor.untyped_storage().data_ptr()
    return id(tensor.storage)


def _inner(module: Module, *path: str) -> Module:
    for name in path:
        module = _members(module, "_modules").get(name, module)
    return module


def _clamp(module: Module, layer: Module) -> float | None:
    """`conv_clamp` of a layer, or, where that is not kept, as the network's maker was told; the
    releases differ in what they default to."""
    told = module.state["_init_kwargs"]
    for known in (layer.state, told.get("synthesis_kwargs", {}), told):
        if (
            isinstance(known, dict)
            and "conv_clamp" in known
            and type(known["conv_clamp"]) in (int, float, type(None))
        ):
            clamp: float | None = known["conv_clamp"]
            return clamp
    raise WeightsError(
        explain(
            f"a {layer.class_name} without a readable conv_clamp",
            "a layer as NVIDIA's training code saves it",
            "check the file",
        )
    )


def _check_arguments(arguments: Any, where: str, depth: int = 0) -> None:
    if not isinstance(arguments, dict) or depth > 2:
        raise WeightsError(f"{where} is no dictionary of settings; expected the constructor's")
    for key, value in arguments.items():
        if key in ONE_VALUE:
            known = any(type(v) is type(value) and v == value for v in ONE_VALUE[key])
            known |= type(value) in (int, float) and value in ONE_VALUE[key]
        else:
            known = key in ANY_VALUE
        if not known:
            raise WeightsError(
                explain(
                    f"{where} with {str(key)[:60]}={shown(value)}",
                    "a network of the usual architecture",
                    "this variant is not supported; convert the file with the code that wrote it",
                )
            )
        if str(key).endswith("_kwargs"):
            _check_arguments(value, f"{where}.{key}", depth + 1)


def _root(content: dict[Any, Any], name: str, class_name: str) -> tuple[Module, dict[Any, Any]]:
    module = content.get(name)
    if type(module) is not Module or module.class_name != class_name:
        raise WeightsError(
            explain(
                f"a file with the entries {sorted(str(key)[:30] for key in content)[:6]} and no "
                f"{class_name} under {name!r}",
                "NVIDIA's dictionary with G, D and G_ema",
                "pass the network file itself",
            )
        )
    arguments = module.state.get("_init_kwargs", {})
    unnamed = module.state.get("_init_args", ())
    if not isinstance(unnamed, tuple | list) or len(unnamed):
        raise WeightsError(f"{name} made with unnamed arguments; expected NVIDIA's named ones")
    if (
        isinstance(arguments, dict)
        and class_name == "Discriminator"
        and arguments.get("c_dim") == 0
    ):
        arguments = {key: value for key, value in arguments.items() if key != "mapping_kwargs"}
    _check_arguments(arguments, name)
    return module, arguments


# ------------------------------------------------------------------ networks


def _shape(state: dict[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state:
        raise WeightsError(f"a network without {key}; expected a complete one of NVIDIA's")
    return tuple(state[key].shape)


def _sizes(arguments: dict[Any, Any], *names: str) -> dict[str, int]:
    """Whole numbers among the constructor's arguments, of reasonable size."""
    for name in names:
        if type(arguments.get(name)) is not int or not 0 <= arguments[name] <= MAX_SETTING:
            raise WeightsError(
                f"the setting {name}={shown(arguments.get(name))}; expected a whole number"
            )
    if arguments.get("img_resolution", 0) > MAX_RESOLUTION:
        raise WeightsError(
            f"img_resolution={arguments['img_resolution']}; expected at most {MAX_RESOLUTION}"
        )
    return {name: arguments[name] for name in names}


def _blocks(
    state: dict[str, Tensor], key: str, resolution: int, start: int = 4
) -> dict[int, tuple[int, ...]]:
    """Shape of one tensor of every block from `start` px on; `key` has the block's size as {}."""
    if resolution < 8 or resolution & (resolution - 1):
        raise WeightsError(f"img_resolution={resolution}; expected a power of two, at least 8")
    sizes = [4 << i for i in range(resolution.bit_length() - 2)]
    return {size: _shape(state, key.format(size)) for size in sizes if size >= start}


def import_generator(
    content: dict[Any, Any], name: str = "G_ema"
) -> StyleGAN2Generator | StyleGAN3Generator:
    """The generator of a file that `read` has read.

    Args:
        content: the file's dictionary.
        name: "G_ema", the average that is always used, or "G".

    Raises:
        WeightsError: no generator there, or one of another architecture.
    """
    module, arguments = _root(content, name, "Generator")
    state = state_dict(module)
    sizes = _sizes(arguments, "z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    common: dict[str, Any] = {
        "z_dim": sizes["z_dim"],
        "c_dim": sizes["c_dim"],
        "w_dim": sizes["w_dim"],
        "resolution": sizes["img_resolution"],
        "img_channels": sizes["img_channels"],
        "mapping_layers": sum(
            key.startswith("mapping.fc") and key.endswith(".weight") for key in state
        ),
    }
    if "synthesis.input.freqs" in state:
        architecture = common | _stylegan3(module, arguments, state)
        return filled(StyleGAN3Generator, architecture, state, name)
    shapes = _blocks(state, "synthesis.b{}.conv1.weight", common["resolution"])
    architecture = common | {
        "channel_base": shapes[common["resolution"]][0] * common["resolution"],
        "channel_max": max(shape[0] for shape in shapes.values()),
        "conv_clamp": _clamp(module, _inner(module, "synthesis", "b4", "conv1")),
    }
    if common["mapping_layers"] > 1:
        width = _shape(state, "mapping.fc0.weight")[0]
        architecture["mapping_width"] = None if width == common["w_dim"] else width
    return filled(StyleGAN2Generator, architecture, state, name)


def _stylegan3(
    module: Module, arguments: dict[Any, Any], state: dict[str, Tensor]
) -> dict[str, Any]:
    layers = [
        key for key in _members(_inner(module, "synthesis"), "_modules") if key.startswith("L")
    ]
    if not 3 <= len(layers) <= 64:
        raise WeightsError(f"a StyleGAN3 of {len(layers)} layers; expected 15, at least 3")
    defaults = {"channel_base": 32768, "channel_max": 512, "num_critical": 2, "margin_size": 10}
    sizes = _sizes({**defaults, **arguments}, *defaults)
    radial = arguments.get("use_radial_filters", False)
    if type(radial) is not bool or sizes["num_critical"] >= len(layers) - 1:
        raise WeightsError("settings of another type than a StyleGAN3 has; check the file")
    layer = _inner(module, "synthesis", layers[0])
    return {
        **sizes,
        "num_layers": len(layers) - 1,
        "conv_kernel": _shape(state, f"synthesis.{layers[0]}.weight")[-1],
        "use_radial_filters": radial,
        "conv_clamp": _clamp(module, layer),
    }


def import_discriminator(content: dict[Any, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The discriminator of a file -> constructor arguments and state dict of our
    `StyleGAN2Discriminator`; StyleGAN3 has the same one.

    Raises:
        WeightsError: no discriminator there, or one of another architecture.
    """
    module, arguments = _root(content, "D", "Discriminator")
    state = state_dict(module)
    sizes = _sizes(arguments, "c_dim", "img_resolution", "img_channels")
    resolution = sizes["img_resolution"]
    shapes = _blocks(state, "b{}.skip.weight", resolution, start=8)  # the residual architecture
    widths = [shape[1] for shape in shapes.values()] + [_shape(state, "b4.out.weight")[1]]
    group = {GROUP: 4, **arguments.get("epilogue_kwargs", {})}
    if group[GROUP] is None:  # the whole batch, however large
        group[GROUP] = MAX_SETTING
    architecture = {
        "c_dim": sizes["c_dim"],
        "resolution": resolution,
        "img_channels": sizes["img_channels"],
        "channel_base": shapes[resolution][1] * resolution,
        "channel_max": max(widths),
        "conv_clamp": _clamp(module, _inner(module, f"b{resolution}", "conv0")),
        **_sizes(group, GROUP),
    }
    return architecture, state
