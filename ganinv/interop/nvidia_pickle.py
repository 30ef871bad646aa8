"""A generator as one of NVIDIA's `.pkl` files: their loader (`legacy.load_network_pkl`), PTI and
DragGAN open it.

    file     {"G": module, "D": module, "G_ema": module, "training_set_kwargs": None,
             "augment_pipe": None}, a pickle; G is G_ema
    module   torch_utils.persistence._reconstruct_persistent_obj({"type": "class", "version": 6,
             "module_src": Python source, "class_name": ..., "state": its __dict__})

NVIDIA's loader runs `module_src`; here that is `ganinv/interop/nvidia/stylegan2.py` or
`stylegan3.py`, written for this, with the names that programs for NVIDIA's networks look for.
ganinv itself reads such files without running anything of them (`generator/importer/nvidia.py`).

DragGAN builds NVIDIA's own class by the file's name, which must have "stylegan2" or "stylegan3" in
it, from `init_kwargs`, and fills it from `state_dict()`.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import dumps
from types import ModuleType
from typing import Any

from torch import nn

from ganinv.core.errors import ConfigError, explain
from ganinv.core.safe.io import write_atomic
from ganinv.generator.importer import nvidia_state
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan3 import StyleGAN3Generator

VERSION = 6  # of the module records
PROTOCOL = 4  # of pickle: Python 3.4 and newer


def write(path: Path, generator: AnyGenerator) -> None:
    """Write the file, atomically.

    Raises:
        ConfigError: a StyleGAN (v1); a name that DragGAN takes for another network.
    """
    if isinstance(generator, StyleGANGenerator):
        given = "--to nvidia-pkl, and a StyleGAN (v1)"
        expected = "a StyleGAN2 or StyleGAN3: NVIDIA's PyTorch code has no StyleGAN (v1)"
        todo = "export with --to safetensors, onnx or torch-export, which take any generator"
        raise ConfigError(explain(given, expected, todo))
    name = "stylegan3" if isinstance(generator, StyleGAN3Generator) else "stylegan2"
    if name not in path.name or path.suffix != ".pkl":
        given = f"--to nvidia-pkl --out {path}"
        expected = f"a name with {name} in it that ends in .pkl: DragGAN goes by it"
        raise ConfigError(explain(given, expected, f"try {path.stem}-{name}.pkl"))
    write_atomic(path, pickled(generator, name))


def pickled(generator: AnyGenerator, name: str) -> bytes:
    """The file's bytes.

    Args:
        generator: a StyleGAN2 or StyleGAN3.
        name: stylegan2 or stylegan3, the source that describes it.
    """
    with _their_modules():
        networks = importlib.import_module(f"ganinv.interop.nvidia.{name}")
        arguments = nvidia_state.export_state(generator)["init_kwargs"]
        network = networks.Generator(**arguments)
        state = {key: value.cpu() for key, value in generator.state_dict().items()}
        network.load_state_dict(state)
        network.eval().requires_grad_(False)
        content = {"G": network, "D": networks.Discriminator().eval(), "G_ema": network}
        content |= {"training_set_kwargs": None, "augment_pipe": None}
        return dumps(content, protocol=PROTOCOL)


# ------------------------------------------------------------------ what NVIDIA's code is to pickle


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    raise AssertionError("ganinv reads such files without building their classes")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def _persistent_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The decorator of the sources: an object keeps its constructor's arguments and is pickled as a
    record of its class's source and of its attributes."""

    class Persistent(cls):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._init_args, self._init_kwargs = copy.deepcopy(args), copy.deepcopy(kwargs)

        def __reduce__(self) -> tuple[Any, ...]:
            record = {"type": "class", "version": VERSION, "module_src": _source(cls.__module__)}
            record |= {"class_name": cls.__name__, "state": dict(vars(self))}
            return _reconstruct_persistent_obj, (record,)

    Persistent.__name__, Persistent.__qualname__ = cls.__name__, cls.__qualname__
    Persistent.__doc__ = cls.__doc__
    return Persistent


_SOURCES: dict[str, str] = {}


def _source(module: str) -> str:
    """The source of a module, one string for all its objects."""
    if module not in _SOURCES:
        _SOURCES[module] = Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8")
    return _SOURCES[module]


@contextmanager
def _their_modules() -> Iterator[None]:
    """Within this block the sources find what they import from NVIDIA's code, and pickle the name
    that NVIDIA's loader has."""
    package, persistence = ModuleType("torch_utils"), ModuleType("torch_utils.persistence")
    package.persistence = persistence  # type: ignore[attr-defined]
    persistence.persistent_class = _persistent_class  # type: ignore[attr-defined]
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    names = {"torch_utils": package, "torch_utils.persistence": persistence}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
