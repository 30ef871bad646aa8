"""Writes pickles as NVIDIA's training code does, from ganinv's own networks; a placeholder stands
where NVIDIA's files carry their Python source."""

import collections
import copy
import pickle
import sys
import types

import torch

SOURCE = "raise SystemExit('the source inside a file was executed')"


class EasyDict(dict):
    """Of the module dnnlib.util."""


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the tests never load with Python's pickle")


EasyDict.__module__ = "dnnlib.util"
EasyDict.__qualname__ = "EasyDict"
_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Record:
    """Reduces to a persistent module."""

    def __init__(self, class_name, state, **changes):
        self.meta = {"type": "class", "version": 6, "module_src": SOURCE}
        self.meta |= {"class_name": class_name, "state": state, **changes}

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def class_of(name, module):
    """NVIDIA's class of one of our modules, by its place."""
    kinds = {"mapping": "MappingNetwork", "synthesis": "SynthesisNetwork", "affine": "Fully"}
    kinds |= {"torgb": "ToRGBLayer", "input": "SynthesisInput", "b4": "SynthesisBlock"}
    last = name.rpartition(".")[2]
    found = kinds.get(last, "SynthesisLayer" if hasattr(module, "affine") else "Fully")
    return "FullyConnectedLayer" if found == "Fully" else found


def record(module, name="", class_name=None, arguments=None, clamp=None, edit=None):
    """A module and all that is in it. `edit(name, state)` may change each state."""
    inner = {
        key: record(child, f"{name}.{key}".lstrip("."), clamp=clamp, edit=edit)
        for key, child in module._modules.items()
    }
    state = {  # what torch keeps in a module, hooks and all, and plain attributes of ours
        key: copy.copy(value)
        for key, value in vars(module).items()
        if key[0] == "_" or type(value) in (bool, int, float, str, type(None), tuple, list)
    }
    state |= {
        "_modules": collections.OrderedDict(inner),  # as older releases of torch have it
        "conv_clamp": clamp,
        "act_gain": torch.tensor(2.0).sqrt().numpy()[()],  # a NumPy number
        "size": torch.tensor([36, 36]).numpy(),  # an array
        "_init_args": (),
        "_init_kwargs": EasyDict(arguments or {}),
    }
    if edit is not None:
        edit(name, state)
    return Record(class_name or class_of(name, module), state)


def generator_arguments(generator, nested):
    """`_init_kwargs` of the root: nested as in stylegan2-ada-pytorch, or flat as in stylegan3."""
    a = generator.architecture
    arguments = {
        "z_dim": a["z_dim"],
        "c_dim": a["c_dim"],
        "w_dim": a["w_dim"],
        "img_resolution": a["resolution"],
        "img_channels": a["img_channels"],
        "mapping_kwargs": EasyDict(num_layers=a["mapping_layers"]),
    }
    synthesis = {"channel_base": a["channel_base"], "channel_max": a["channel_max"]}
    if nested:
        return arguments | {"synthesis_kwargs": EasyDict(synthesis, num_fp16_res=0)}
    for key in ("num_layers", "num_critical", "margin_size", "conv_kernel", "use_radial_filters"):
        synthesis |= {key: a[key]} if key in a else {}
    return arguments | synthesis | {"magnitude_ema_beta": 0.999}


def content(generator, critic=None, nested=True, edit=None):
    """The dictionary of a file."""
    clamp = generator.architecture["conv_clamp"]
    root = record(generator, "", "Generator", generator_arguments(generator, nested), clamp, edit)
    found = {"training_set_kwargs": {"path": "x.zip"}, "G": root, "D": None, "G_ema": root}
    if critic is not None:
        a = critic.architecture
        arguments = {
            "c_dim": a["c_dim"],
            "img_resolution": a["resolution"],
            "img_channels": a["img_channels"],
            "channel_base": a["channel_base"],
            "block_kwargs": EasyDict(freeze_layers=0),
            "epilogue_kwargs": EasyDict(mbstd_group_size=a["mbstd_group_size"]),
        }
        found["D"] = record(critic, "", "Discriminator", arguments, a["conv_clamp"])
    return found


def stand_ins():
    """What stands for NVIDIA's modules while one of their files is written."""
    return {
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": types.SimpleNamespace(EasyDict=EasyDict),
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": types.SimpleNamespace(
            _reconstruct_persistent_obj=_reconstruct_persistent_obj
        ),
    }


def dump(value, protocol=4):
    """pickle.dumps with NVIDIA's modules in place."""
    modules = stand_ins()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        return pickle.dumps(value, protocol)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
