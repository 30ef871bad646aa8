"""Feature networks as the trainers of pSp and e4e use them, checked and brought into plain form.

ArcFace   `model_ir_se50.pth`: a bare state dict of 397 tensors
MoCo v2   a training checkpoint: {"state_dict": module.encoder_q.*, ...}; what remains is a
          ResNet-50 under torchvision's names, its last layer left out
BDInvert  {"encoder": state dict, "optimizer": ..., ...}; what remains is the base-code encoder
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganinv.backbone.irse import ArcFaceNet
from ganinv.backbone.moco import MoCoResNet50, resnet_of
from ganinv.core.errors import WeightsError, explain
from ganinv.core.network import misfits, settings_fault, state_of
from ganinv.encoder.base_code import HALVINGS, BaseCodeEncoder


def is_arcface(content: Any) -> bool:
    """Whether a torch file is ArcFace's IR-SE50."""
    return isinstance(content, dict) and {"input_layer.0.weight", "output_layer.3.weight"} <= set(
        content
    )


def is_base_code(content: Any) -> bool:
    """Whether a torch file is BDInvert's base-code encoder."""
    state = content.get("encoder", content) if isinstance(content, dict) else None
    return isinstance(state, dict) and {"model.0.weight", "model.1.running_mean"} <= set(state)


def arcface(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The checked state dict of ArcFace.

    Raises:
        WeightsError: tensors missing, left over or of another shape.
    """
    with torch.device("meta"):
        own = ArcFaceNet().state_dict()
    return _checked(own, content, "a file that looks like ArcFace's")


def moco(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The ResNet-50 of a MoCo checkpoint under torchvision's names, without `fc`.

    Raises:
        WeightsError: tensors missing, left over or of another shape.
    """
    with torch.device("meta"):
        own = MoCoResNet50().network.state_dict()
    return _checked(own, resnet_of(content), "a MoCo checkpoint")


def base_code(content: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Tensor]]:
    """What BDInvert's file says of the encoder's constructor's arguments (all but `side`, which a
    convolutional network does not have), and its state dict.

    Raises:
        WeightsError: tensors missing, left over or of another shape.
    """
    state = state_of(content.get("encoder", content), "a base-code encoder")
    found = {key: re.fullmatch(r"model\.(\d{1,4})\.weight", key, re.ASCII) for key in state}
    convolutions = sorted(int(m[1]) for k, m in found.items() if m and state[k].ndim == 4)
    if len(convolutions) < 3 * HALVINGS:
        raise WeightsError("a base-code encoder of too few convolutions; check the file")
    shapes = [state[f"model.{i}.weight"].shape for i in convolutions]
    architecture = {
        "channels": int(shapes[-1][0]),
        "input_nc": int(shapes[0][1]),
        "channel_base": int(shapes[0][0]),
        "channel_max": max(int(shape[0]) for shape in shapes[:-2]),
    }
    if fault := settings_fault(BaseCodeEncoder, {"side": 1, **architecture}, len(state)):
        raise WeightsError(f"a base-code encoder of unusual sizes ({fault}); check the file")
    if not all(architecture.values()):
        raise WeightsError("a base-code encoder of no channels; check the file")
    with torch.device("meta"):
        own = BaseCodeEncoder(side=1, **architecture).state_dict()
    return architecture, _checked(own, state, "a base-code encoder")


def _checked(own: Mapping[str, Tensor], state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    state = state_of(state, source)
    if wrong := misfits(own, state):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(
            explain(f"{source} with {', '.join(wrong[:3])}{more}", f"{len(own)} tensors",
                    "pass the published file")
        )  # fmt: skip
    return {key: state[key].contiguous() for key in own}
