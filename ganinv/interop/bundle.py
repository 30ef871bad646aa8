"""ganinv's own file of a trained encoder: one `.safetensors` that says what it is.

Metadata (JSON): `format` "ganinv-inverter"; `encoder`, its class and its constructor's arguments;
`task`, what it reads; `start_from_w_avg`, `refinements` (see `Model`); `generator`, where it was,
its sha256 and its shape; `image`, size, colour and range; `config` of the training run,
resolved, for readers: nothing is built from it; `versions`.
Tensors: `encoder.<key>`, float32. The generator is not in it: it is found again and must be the
same file, byte for byte.

    model = ganinv.load("e4e.safetensors")
    wp = model.encode(image)             # [B,3,H,W] in [-1,1] -> [B,L,D]
    image = model.render(wp)             # [B,L,D] -> [B,3,R,R]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ganinv import __version__
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing, explain, named, shown
from ganinv.core.safe.io import read_safetensors, sha256_file, write_safetensors
from ganinv.generator.importer.bundle import KINDS, AnyGenerator
from ganinv.generator.importer.load import load_generator
from ganinv.interop import task
from ganinv.interop.encoder import ENCODERS, ITERATIVE, build_encoder
from ganinv.inversion.model import Model

FORMAT = "ganinv-inverter"
MAX_REFINEMENTS = 100
KIND_WORDS = {str: "text", dict: "a mapping", bool: "true or false", int: "a whole number"}


def facts(model: Model) -> dict[str, Any]:
    """What a file of any kind says about the model: sizes, ranges, colour, L, versions."""
    generator = model.G
    height, width = model.input_size
    return {
        "encoder": {"kind": model.kind, "architecture": model.architecture},
        "start_from_w_avg": model.start_from_w_avg,
        "task": task.facts_of(model.task),
        "refinements": model.refinements,
        "generator": generator_facts(generator),
        "image": {
            "channels": model.task.channels,
            "height": height,
            "width": width,
            "colour": "RGB",
            "range": [-1, 1],
        },
        "num_ws": model.num_ws,
        "w_dim": model.w_dim,
        "versions": {"ganinv": __version__, "torch": torch.__version__},
    }


def generator_facts(generator: AnyGenerator) -> dict[str, Any]:
    """What a file says about a generator."""
    return {
        "kind": type(generator).__name__,
        "architecture": generator.architecture,
        "source": _lasting(generator.source),
        "sha256": generator.sha256,
        "num_ws": generator.num_ws,
        "resolution": generator.resolution,
    }


def write(
    path: Path,
    model: Model,
    config: Mapping[str, Any] | None = None,
    dataset_type: str | None = None,
) -> None:
    """Write the bundle, atomically.

    Args:
        path: of the file.
        model: what to write.
        config: the resolved config of the training run, where there is one.
        dataset_type: what the released checkpoint called the images from which it was imported.

    Raises:
        ConfigError: an encoder or a generator of a class that a bundle has no name for.
        WeightsError: the generator came from no file, so that it could not be found again.
    """
    for network, kinds in ((model.E, ENCODERS), (model.G, KINDS)):
        if (kind := type(network).__name__) not in kinds:
            raise ConfigError(
                explain(f"a bundle of class {kind}", f"one of {', '.join(kinds)}",
                        "keep the checkpoint, which evaluate.py and ganinv invert open")
            )  # fmt: skip
    if model.G.sha256 is None:
        raise WeightsError("a generator that came from no file; save it and load that file first")
    tensors = {f"encoder.{key}": value for key, value in model.E.state_dict().items()}
    metadata = {"format": FORMAT, **facts(model), "config": dict(config or {})}
    metadata["dataset_type"] = dataset_type
    write_safetensors(path, tensors, metadata)


def load(
    path: str | Path, generator_weights: str | Path | None = None, device: str = "cpu"
) -> tuple[Model, dict[str, Any]]:
    """The model of a bundle, frozen, and where it is from: `config` of its training run, {} where
    it has none, and `dataset_type` of the released checkpoint, None where it was none.

    Args:
        path: of the bundle.
        generator_weights: the generator's file; None looks where it was, beside the bundle and
            among the shipped ones.
        device: where both go.

    Raises:
        WeightsMissing: no such file, or the generator is not found.
        WeightsError: not a bundle, one that contradicts itself, or another generator than the
            encoder was trained with.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            explain(f"{path} with format={shown(metadata.get('format'))}", f"format={FORMAT!r}",
                    "write one with `ganinv export CHECKPOINT --to safetensors --out FILE`")
        )  # fmt: skip
    kind, architecture = _entry(path, metadata, "encoder", kind=str, architecture=dict)
    source, sha256 = _entry(path, metadata, "generator", source=str, sha256=str)
    start, refinements = _values(path, metadata, start_from_w_avg=bool, refinements=int)
    if not 0 <= refinements <= MAX_REFINEMENTS:
        raise WeightsError(f"{path} with refinements={shown(refinements)}; write it again")
    reads = task.build(metadata.get("task"), str(path))
    state = {k.removeprefix("encoder."): v for k, v in tensors.items()}
    generator = _generator(Path(path), generator_weights, source, sha256)
    if (architecture.get("num_ws"), architecture.get("w_dim")) != (
        generator.num_ws, generator.w_dim,
    ):  # fmt: skip
        raise WeightsError(f"{path} describes an encoder for other codes than its generator's")
    channels = architecture.get("input_nc")
    model = Model(
        encoder=build_encoder(kind, architecture, state, str(path)),
        generator=generator,
        task=reads,
        start_from_w_avg=start,
        refinements=refinements,
        architecture=architecture,
    )
    if channels != model.input_nc or (kind in ITERATIVE) != (refinements > 0):
        raise WeightsError(f"{path} describes an encoder of {channels} channels for another task")
    config, name = metadata.get("config"), metadata.get("dataset_type")
    origin = {
        "config": config if isinstance(config, dict) else {},
        "dataset_type": name if isinstance(name, str) else None,
    }
    return model.freeze().to(device), origin


def _values(path: object, values: Any, **kinds: type) -> list[Any]:
    """The values of these names and types.

    Raises:
        WeightsError: one is missing, or of another type.
    """
    given = values if isinstance(values, Mapping) else {}
    for name, kind in kinds.items():
        if type(given.get(name)) is not kind:
            value = shown(given.get(name)) if name in given else "nothing"
            raise WeightsError(
                explain(f"{path}, whose metadata have {name}={value}", KIND_WORDS[kind],
                        "write the file again with ganinv export")
            )  # fmt: skip
    return [given[name] for name in kinds]


def _entry(path: object, metadata: Mapping[str, Any], name: str, **kinds: type) -> list[Any]:
    """`_values` of an entry of the metadata."""
    return _values(path, _values(path, metadata, **{name: dict})[0], **kinds)


def _generator(bundle: Path, given: str | Path | None, source: str, sha256: str) -> AnyGenerator:
    """The generator with this sha256."""
    weights = str(given) if given is not None else _found(bundle, source, sha256)
    try:
        generator = load_generator(weights=weights, resolution=None, kind=None, origin=None)
    except WeightsMissing as error:
        raise WeightsMissing(
            explain(f"{bundle} names the generator {named(source)}, which is not there",
                    f"the file with sha256 {named(sha256[:16])}..., there or beside the bundle",
                    "pass its path: ganinv.load(bundle, generator_weights=FILE), "
                    "or --generator FILE")
        ) from error  # fmt: skip
    if generator.sha256 != sha256:
        raise WeightsError(
            explain(f"a generator with sha256 {str(generator.sha256)[:12]} ({weights})",
                    f"the one the encoder was trained with, {named(sha256[:12])}",
                    "pass that file (generator_weights=FILE, --generator FILE)")
        )  # fmt: skip
    return generator


def _lasting(source: str | None) -> str | None:
    """A path that commands typed in another folder find too; the name of a shipped generator, or
    of a file that is written beside the bundle, as it is."""
    path = Path(source or "").expanduser()
    return str(path.resolve()) if path.is_file() else source


def _found(bundle: Path, source: str, sha256: str) -> str:
    """Where the generator is: beside the bundle, at its path seen from the bundle, or where it was;
    the first place with the right file, else the first with any."""
    places = [bundle.parent / Path(source).name, bundle.parent / source, Path(source)]
    there = list(dict.fromkeys(str(place) for place in places if _is_file(place)))
    right = (place for place in there if sha256_file(place) == sha256)
    return next(right, there[0] if there else source)


def _is_file(place: Path) -> bool:
    """Whether a name out of a file is one of a file here; no name at all is not."""
    try:
        return place.is_file()
    except (OSError, ValueError):
        return False
