"""Building a network for tensors that come from a file, which need not be what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ganinv.core.errors import WeightsError, explain

Network = TypeVar("Network", bound=nn.Module)


def filled(
    kind: type[Network], architecture: Mapping[str, Any], state: Mapping[str, Tensor], source: str
) -> Network:
    """A network of class `kind` with the weights of `state`.

    Its shapes are compared before any memory is taken for them, so a file cannot ask for a larger
    network than it fills.

    Args:
        kind: the class.
        architecture: its constructor's arguments.
        state: a complete state dict; numbers of another type are converted.
        source: what the tensors come from, for the message.

    Raises:
        WeightsError: arguments that make no network; tensors missing, left over, or of another
            shape.
    """
    try:
        with torch.device("meta"):
            own = kind(**architecture).state_dict()
    except (ArithmeticError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(
            explain(
                f"{source} with settings that make no {kind.__name__} ({error})",
                "those of a trained network",
                "check the file",
            )
        ) from error
    wrong = misfits(own, state)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(
            explain(
                f"{source} with {', '.join(wrong[:3])}{more}",
                f"the {len(own)} tensors of {kind.__name__}",
                "pass a network of the usual architecture; variants are not supported",
            )
        )
    network = kind(**architecture)
    network.load_state_dict(dict(state))
    return network


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from filling a network whose state dict is `own`, in words."""
    wrong = [f"no {key}" for key in own if key not in state]
    wrong += [f"an unknown {key}" for key in state if key not in own]
    wrong += [
        f"{key} of {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    return wrong
