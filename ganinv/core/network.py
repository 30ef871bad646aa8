"""Building a network for tensors that come from a file, which need not be what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ganinv.core.errors import USER_ERRORS, WeightsError, explain, named, reason_of, shown

MAX_SETTING = 1 << 20  # of a constructor's argument: sizes, channels, groups
MAX_RESOLUTION = 1 << 13  # px
MAX_WIDTH = 1 << 12  # of z and w, of which thousands of samples are drawn; known ones have 512
COUNTS = ("mapping_layers", "num_layers")  # settings that say how many layers are made
MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
             ValueError)  # what code raises on values of other kinds than it counts on  # fmt: skip

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
    state = state_of(state, source)
    fault = settings_fault(kind, architecture, len(state))
    if fault is None:
        try:
            with torch.device("meta"):
                own = kind(**architecture).state_dict()
        except MALFORMED as error:
            fault = reason_of(error)
    if fault is not None:
        raise WeightsError(
            explain(
                f"{source} with settings that make no {kind.__name__} ({fault})",
                "those of a trained network",
                "check the file",
            )
        )
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


@contextmanager
def refused_as_malformed(path: object, what: str) -> Iterator[None]:
    """Whatever a file of wrong types makes code raise is one refusal: no `what` in it.

    Raises:
        WeightsError: naming the file and the reason; errors that a user or a disk can cause pass.
    """
    try:
        yield
    except USER_ERRORS:
        raise
    except (*MALFORMED, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the disk's, which has a sentence of its own
        raise WeightsError(
            explain(f"{path}, which holds no {what} that can be read ({reason_of(error)})",
                    "a complete one of a layout that ganinv knows", "check the file")
        ) from error  # fmt: skip


def state_of(value: Any, source: str) -> dict[str, Tensor]:
    """A state dict of a file.

    Raises:
        WeightsError: no dictionary, keys that are no names, or values that are no dense tensors.
    """
    if not isinstance(value, Mapping):
        fault = shown(value)
    else:
        key = next((key for key in value if type(key) is not str), "")
        wrong = next((k for k, v in value.items() if not isinstance(v, Tensor)), None)
        if type(key) is not str:
            fault = f"the key {shown(key)}"
        elif wrong is not None:
            fault = f"{shown(value[wrong])} under {shown(wrong)}"
        else:
            return dict(value)
    raise WeightsError(
        explain(f"{source} with {fault}", "a state dict, tensors by name", "check the file")
    )


def settings_fault(kind: type, settings: Any, tensors: int) -> str | None:
    """What is wrong with a constructor's arguments that come from a file; None: nothing.

    Args:
        kind: the class; its parameters' annotations say which type each one has.
        settings: the arguments.
        tensors: of the file; a network has no more layers.
    """
    if not isinstance(settings, Mapping):
        return f"{shown(settings)} instead of settings by name"
    known = {n: p for n, p in signature(kind).parameters.items()}
    if unknown := next((key for key in settings if key not in known), None):
        return f"an unknown {shown(unknown)}"
    for name, parameter in known.items():
        if name not in settings and parameter.default is parameter.empty:
            return f"no {name}"
    for name, value in settings.items():
        most = {"resolution": MAX_RESOLUTION, "z_dim": MAX_WIDTH, "w_dim": MAX_WIDTH}.get(
            name, tensors if name in COUNTS else MAX_SETTING
        )
        kinds = str(known[name].annotation)
        if type(value) is bool or value is None:
            fits = ("bool" if value is not None else "None") in kinds
        else:
            fits = type(value) is int or (type(value) is float and "float" in kinds)
            fits = fits and 0 <= value <= most
        if not fits:
            return f"{name}={shown(value)}"
    return None


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from filling a network whose state dict is `own`, in words."""
    wrong = [f"no {key}" for key in own if key not in state]
    wrong += [f"an unknown {named(key)}" for key in state if key not in own]
    wrong += [
        f"{key} of {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    return wrong
