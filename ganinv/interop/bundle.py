"""ganinv's own file of a trained encoder: one `.safetensors` that says what it is.

Metadata (JSON): `format` "ganinv-inverter"; `encoder`, its class and its constructor's arguments;
`start_from_w_avg`, `steps` (see `export/inverter.py`); `generator`, where it was, its sha256 and
its shape; `image`, size, colour and range; `config` of the training run, resolved; `versions`.
Tensors: `encoder.<key>`, float32. The generator is not in it: it is found again and must be the
same file, byte for byte.

    inverter = ganinv.load("e4e.safetensors")
    wp = inverter.encode(image)          # [B,3,H,W] in [-1,1] -> [B,L,D]
    image = inverter.decode(wp)          # [B,L,D] -> [B,3,R,R]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ganinv import __version__
from ganinv.core.errors import WeightsError, WeightsMissing, explain
from ganinv.core.safe.io import read_safetensors, write_safetensors
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.importer.load import load_generator
from ganinv.interop.encoder import build_encoder
from ganinv.interop.inverter import STEPS, Inverter

FORMAT = "ganinv-inverter"


def facts(inverter: Inverter) -> dict[str, Any]:
    """What a file of any kind says about the model: sizes, ranges, colour, L, versions."""
    generator = inverter.generator
    height, width = inverter.input_size
    return {
        "encoder": {"kind": inverter.kind, "architecture": inverter.architecture},
        "start_from_w_avg": inverter.start_from_w_avg,
        "steps": inverter.steps if inverter.refines else None,
        "generator": generator_facts(generator),
        "image": {
            "channels": inverter.image_channels,
            "height": height,
            "width": width,
            "colour": "RGB",
            "range": [-1, 1],
        },
        "num_ws": inverter.num_ws,
        "w_dim": inverter.w_dim,
        "versions": {"ganinv": __version__, "torch": torch.__version__},
    }


def generator_facts(generator: AnyGenerator) -> dict[str, Any]:
    """What a file says about a generator."""
    return {
        "kind": type(generator).__name__,
        "architecture": generator.architecture,
        "source": generator.source,
        "sha256": generator.sha256,
        "num_ws": generator.num_ws,
        "resolution": generator.resolution,
    }


def write(path: Path, inverter: Inverter) -> None:
    """Write the bundle, atomically.

    Raises:
        WeightsError: the generator came from no file, so that it could not be found again.
    """
    if inverter.generator.sha256 is None:
        raise WeightsError("a generator that came from no file; save it and load that file first")
    tensors = {f"encoder.{key}": value for key, value in inverter.encoder.state_dict().items()}
    metadata = {"format": FORMAT, **facts(inverter), "config": inverter.config}
    write_safetensors(path, tensors, metadata)


def load(
    path: str | Path, generator_weights: str | Path | None = None, device: str = "cpu"
) -> Inverter:
    """A trained encoder and its generator, from a bundle.

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
            explain(f"{path} with format={metadata.get('format')!r}", f"format={FORMAT!r}",
                    "write one with `ganinv export CHECKPOINT --to safetensors --out FILE`")
        )  # fmt: skip
    try:
        kind, architecture = metadata["encoder"]["kind"], dict(metadata["encoder"]["architecture"])
        source, sha256 = metadata["generator"]["source"], metadata["generator"]["sha256"]
        start, steps = bool(metadata["start_from_w_avg"]), metadata["steps"] or STEPS
        state = {k.removeprefix("encoder."): v for k, v in tensors.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} lacks {error} in its metadata; write it again") from error
    generator = _generator(Path(path), generator_weights, source, sha256)
    if (architecture.get("num_ws"), architecture.get("w_dim")) != (
        generator.num_ws, generator.w_dim,
    ):  # fmt: skip
        raise WeightsError(f"{path} describes an encoder for other codes than its generator's")
    inverter = Inverter(
        encoder=build_encoder(kind, architecture, state, str(path)),
        generator=generator,
        architecture=architecture,
        start_from_w_avg=start,
        steps=int(steps),
        config=metadata.get("config"),
    )
    return inverter.to(device)


def _generator(
    bundle: Path, given: str | Path | None, source: str | None, sha256: str | None
) -> AnyGenerator:
    """The generator with this sha256."""
    beside = bundle.parent / Path(source or "").name
    weights = str(given) if given is not None else str(beside if beside.is_file() else source)
    try:
        generator = load_generator(weights=weights, resolution=None, kind=None, origin=None)
    except WeightsMissing as error:
        raise WeightsMissing(
            explain(f"{bundle} names the generator {source}, which is not there",
                    f"the file with sha256 {str(sha256)[:16]}..., there or beside the bundle",
                    "pass its path: ganinv.load(bundle, generator_weights=FILE), "
                    "or --generator FILE")
        ) from error  # fmt: skip
    if generator.sha256 != sha256:
        raise WeightsError(
            explain(f"a generator with sha256 {str(generator.sha256)[:12]} ({weights})",
                    f"the one the encoder was trained with, {str(sha256)[:12]}",
                    "pass that file (generator_weights=FILE, --generator FILE)")
        )  # fmt: skip
    return generator
