"""`encoder.weights=FILE`: an encoder that a training goes on from, whoever trained it.

    training checkpoint (.ckpt)       E of it
    bundle (.safetensors)             of `ganinv export --to safetensors` or `ganinv import`
    pSp's, e4e's, ReStyle's own       encoder.* of it
    IDInvert's encoder                `*_encoder.pth`
    BDInvert's base-code encoder      as released, or as `ganinv import` writes it

Only the encoder's tensors are taken: generator, task and settings are the config's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ganinv.core.errors import WeightsError, explain, named
from ganinv.core.network import misfits, refused_as_malformed
from ganinv.core.safe.io import load_tensors, read_safetensors, sha256_file
from ganinv.interop import bundle, feature, imported
from ganinv.interop.encoder_file import encoder_file

log = logging.getLogger(__name__)


def start_from(encoder: nn.Module, path: str) -> None:
    """Fill an encoder with the weights of a file.

    Args:
        encoder: of the config's class and sizes; untouched unless all fits.
        path: see the table.

    Raises:
        WeightsMissing: no such file.
        WeightsError: no encoder in it, one of another class, or of another shape.
    """
    file = encoder_file(path)
    with refused_as_malformed(file, "encoder"):
        kind, state = read_encoder(file)
    if isinstance(layers := getattr(encoder, "num_ws", None), int):
        state = imported.trimmed(state, layers)
    if kind != type(encoder).__name__:
        raise WeightsError(
            explain(f"encoder.weights={path}, a {named(kind)}",
                    f"a {type(encoder).__name__}, the class that encoder=... names",
                    "choose the encoder=... of the file's class")
        )  # fmt: skip
    if wrong := misfits(encoder.state_dict(), state):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(
            explain(f"encoder.weights={path} with {', '.join(wrong[:3])}{more}",
                    "the tensors of the config's encoder: its num_ws, w_dim, input_nc and trunk",
                    "choose the generator, task and trunk that the file was trained with")
        )  # fmt: skip
    encoder.load_state_dict(state)
    log.info("encoder: weights from %s (sha256 %s)", file.name, sha256_file(file)[:16])


def read_encoder(file: Path) -> tuple[str, dict[str, Tensor]]:
    """The name of an encoder's class, and its state dict.

    Raises:
        WeightsError: a file without an encoder.
    """
    if file.suffix == ".safetensors":
        tensors, metadata = read_safetensors(file)
        if metadata.get("format") == bundle.FORMAT:
            encoder = metadata.get("encoder")
            kind = encoder.get("kind") if isinstance(encoder, dict) else None
            return named(kind), _part(tensors, "encoder.")
        if metadata.get("format") == "ganinv-encoder":
            return named(metadata.get("kind")), tensors
        raise _no_encoder(file)
    content = load_tensors(file)
    if isinstance(content, dict) and isinstance(content.get("ganinv"), dict):
        return _of_training(content, file)
    if imported.is_official(content):
        opts = content.get("opts")
        state = _part(content.get("state_dict", content), "encoder.")
        name = opts.get("encoder_type") if isinstance(opts, dict) else None
        return imported.kind_of(state, name), state
    if imported.is_idinvert(content):
        return "DomainGuidedEncoder", _part(content, "")
    if feature.is_base_code(content):
        return "BaseCodeEncoder", feature.base_code(content)[1]
    raise _no_encoder(file)


def _of_training(content: dict[str, Any], file: Path) -> tuple[str, dict[str, Tensor]]:
    config, state = content["ganinv"].get("config"), content.get("state_dict")
    node = config.get("encoder") if isinstance(config, dict) else None
    if not isinstance(node, dict) or not isinstance(state, dict):
        raise _no_encoder(file)
    return named(node.get("_target_")).rpartition(".")[2], _part(state, "E.")


def _part(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _no_encoder(file: Path) -> WeightsError:
    return WeightsError(
        explain(f"encoder.weights={file}, in which no encoder was found",
                "a .ckpt of train.py, a bundle, or the file of a released encoder",
                "pass such a file, or set encoder.weights=null")
    )  # fmt: skip
