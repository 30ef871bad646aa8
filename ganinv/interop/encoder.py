"""The encoders that a file may name, and building one for the tensors of a file.

A file never says which code builds its network: it says a name of this list.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.errors import USER_ERRORS, WeightsError, explain, reason_of, shown
from ganinv.core.network import MALFORMED, misfits, state_of
from ganinv.encoder.e4e import Encoder4Editing
from ganinv.encoder.idinvert import DomainGuidedEncoder, DomainGuidedEncoder5x5
from ganinv.encoder.psp import GradualStyleEncoder, PyramidEncoder, WEncoder, WPlusEncoder
from ganinv.encoder.restyle import (
    ReStyleEncoder,
    ReStyleEncoder4Editing,
    ReStyleResNetEncoder,
    ReStyleResNetEncoder4Editing,
)

ENCODERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        GradualStyleEncoder,
        WEncoder,
        WPlusEncoder,
        Encoder4Editing,
        ReStyleEncoder,
        ReStyleEncoder4Editing,
        ReStyleResNetEncoder,
        ReStyleResNetEncoder4Editing,
        DomainGuidedEncoder,
        DomainGuidedEncoder5x5,
    )
}
# They read the image and the present one.
ITERATIVE = tuple(name for name in ENCODERS if name.startswith("ReStyle"))
MAX_NUMBER = 1 << 16  # of a constructor's argument: sizes, layers, channels


def build_encoder(
    kind: Any, architecture: Mapping[str, Any], state: Mapping[str, Tensor], source: str
) -> nn.Module:
    """An encoder in eval mode, its weights those of `state`, not copied.

    Args:
        kind: a name of ENCODERS.
        architecture: its constructor's arguments.
        state: its complete state dict.
        source: what the tensors come from, for the message.

    Raises:
        WeightsError: an unknown kind, arguments that build none, or tensors that do not fit.
    """
    state = state_of(state, source)
    if type(kind) is not str or kind not in ENCODERS:
        raise WeightsError(
            explain(f"{source} with an encoder of class {shown(kind)}",
                    f"one of {', '.join(ENCODERS)}", "check the file")
        )  # fmt: skip
    constructor = ENCODERS[kind]
    architecture = {k: v for k, v in architecture.items() if k != "trunk_weights"}  # old bundles
    known = inspect.signature(constructor.__init__).parameters
    unknown = next((key for key in architecture if key not in known), None)
    wrong_value = (key for key, v in architecture.items() if not _reasonable(key, v, len(state)))
    fault = None if unknown is None else f"an unknown setting {shown(unknown)}"
    if fault is None and (key := next(wrong_value, None)) is not None:
        fault = f"{key}={shown(architecture[key])}"
    network: nn.Module | None = None
    if fault is None:
        try:
            with torch.device("meta"):  # shapes only: no memory yet
                network = constructor(**architecture)
        except USER_ERRORS as error:
            fault = str(error)
        except MALFORMED as error:
            fault = reason_of(error)
    if network is None:
        raise WeightsError(
            explain(f"{source} with settings that make no {kind} ({fault})",
                    "those of a trained encoder", "check the file")
        )  # fmt: skip
    own = network.state_dict()
    if wrong := misfits(own, state):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(
            explain(f"{source} with {', '.join(wrong[:3])}{more}",
                    f"the {len(own)} tensors of {kind}", "pass a complete checkpoint")
        )  # fmt: skip
    converted = {key: state[key].to(value.dtype) for key, value in own.items()}
    network.load_state_dict(converted, assign=True)
    return network.eval().requires_grad_(False)


def _reasonable(key: str, value: Any, tensors: int) -> bool:
    """Whether a setting may be tried; there are no more heads than tensors."""
    most = tensors if key == "num_ws" else MAX_NUMBER
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(type(v) is int and 0 < v <= most for v in value)
    return (
        value is None
        or (type(value) is int and 0 < value <= most)
        or (type(value) is str and len(value) < 100)
    )


@torch.no_grad()
def close_heads(encoder: nn.Module, stage: int) -> None:
    """Make an e4e encoder that is trained up to `stage` give the same codes with all heads open:
    the last layer of each closed head becomes zero, and so does its offset."""
    heads = encoder.get_submodule("styles")
    assert isinstance(
        encoder, PyramidEncoder | ReStyleEncoder4Editing | ReStyleResNetEncoder4Editing
    )
    assert isinstance(heads, nn.ModuleList)
    for head in heads[stage + 1 :]:
        for parameter in head.get_submodule("linear").parameters():
            parameter.zero_()
