"""MoCo v2's ResNet-50: the similarity network of pSp, e4e and ReStyle where there are no faces.

Source: Chen et al., arXiv 2003.04297; architecture He et al., arXiv 1512.03385, torchvision's.

    image [B,3,H,W] in [-1,1] -> nearest to 224 x 224 px, aspect not kept -> r [B,2048], |r| = 1

Nearest neighbour and the missing ImageNet statistics are the trainers' own: the published loss
weights belong to them. Their last layer, MoCo's head, is left out.

Differs from the released code in: one image is a batch too (released: an error).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from ganinv.backbone import weights as weights_of
from ganinv.core.errors import WeightsError, explain

QUERY = "module.encoder_q."  # MoCo trains two networks; this one is kept
SIDE = 224


class MoCoResNet50(nn.Module):
    """The architecture; `moco_resnet50` gives it trained."""

    def __init__(self) -> None:
        super().__init__()
        self.network = resnet50(weights=None)
        self.network.fc = nn.Identity()  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Tensor:
        """image [B,3,H,W] in [-1,1] -> [B,2048] of unit length."""
        return F.normalize(self.network(F.interpolate(image, (SIDE, SIDE), mode="nearest")))


def is_training_checkpoint(content: Any) -> bool:
    """Whether a torch file is a training checkpoint of MoCo."""
    state = content.get("state_dict") if isinstance(content, dict) else None
    return isinstance(state, dict) and f"{QUERY}conv1.weight" in state


def resnet_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """A training checkpoint's query network under torchvision's names, without its head; a plain
    ResNet-50 as it is, without `fc`."""
    if is_training_checkpoint(content):
        state = content["state_dict"]
        content = {str(k).removeprefix(QUERY): state[k] for k in state if str(k).startswith(QUERY)}
    return {key: value for key, value in content.items() if not str(key).startswith("fc.")}


def moco_resnet50(*, weights: str | None) -> MoCoResNet50:
    """MoCo v2's ResNet-50 with its published weights, frozen, in eval mode.

    Args:
        weights: path or name of the training checkpoint, or of what `ganinv import` makes of it;
            None looks for the published name in the usual places.

    Raises:
        WeightsMissing, WeightsError: no such file; one of another network.
    """
    content, provenance = weights_of.read("moco_v2_resnet50", weights)
    if not isinstance(content, dict) or not resnet_of(content):
        raise WeightsError(
            explain(
                f"{provenance}, which holds no network",
                f"a training checkpoint of MoCo v2 ('state_dict' with '{QUERY}*')",
                "give the path of the published file",
            )
        )
    with torch.device("meta"):
        network = MoCoResNet50()
    network.to_empty(device="cpu")
    weights_of.fit(network.network, resnet_of(content), provenance)
    return network.eval().requires_grad_(False)
