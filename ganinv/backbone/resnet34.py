"""ResNet-34 as ReStyle's trunk where there are no faces.

Source: He et al., arXiv 1512.03385; weights: torchvision's ImageNet ones; layout and changes of
yuval-alaluf/restyle-encoder.

    image [B,C,H,W] in [-1,1] -> c3 [B,512,H/16,W/16]

torchvision's network without its maximum pooling, its 16 blocks in one list (`body.0` to
`body.15`), and a parametric ReLU, whose slopes start at 0.25, behind the first convolution.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torchvision.models import resnet34

from ganinv.backbone import weights as weights_of

BLOCKS = (3, 4, 6, 3)  # of torchvision's layer1 to layer4
CHANNELS = 512


class ResNet34Trunk(nn.Module):
    """The trunk with random weights; `load_resnet34` fills it."""

    def __init__(self, input_nc: int) -> None:
        super().__init__()
        whole = resnet34(weights=None)
        self.conv1 = nn.Conv2d(input_nc, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.PReLU(64)
        layers = (whole.layer1, whole.layer2, whole.layer3, whole.layer4)
        self.body = nn.Sequential(*(block for layer in layers for block in layer))

    def last(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] -> c3 [B,512,H/16,W/16]."""
        c3: Tensor = self.body(self.relu(self.bn1(self.conv1(image))))
        return c3


def flat_name(name: str) -> str:
    """torchvision's `layer3.2.conv1.weight` -> `body.9.conv1.weight`."""
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(.*)", name)
    if found is None:
        return name
    layer, block, rest = int(found[1]), int(found[2]), found[3]
    return f"body.{sum(BLOCKS[: layer - 1]) + block}.{rest}"


def load_resnet34(trunk: ResNet34Trunk, path: str) -> str:
    """Fill a trunk from torchvision's file; returns the provenance.

    Args:
        trunk: to fill. Of an input of more than three channels, which begins with RGB, the filters
            of the others keep their random weights; so do the parametric ReLU's slopes.
        path: `resnet34-b627a593.pth`.

    Raises:
        WeightsMissing, WeightsError: no such file; one of another network.
    """
    state, provenance = weights_of.load("resnet34", path)
    state = {flat_name(k): v for k, v in state.items() if not k.startswith("fc.")}
    state["relu.weight"] = trunk.relu.weight.detach()
    others = trunk.conv1.weight.detach()[:, 3:]
    if others.shape[1] and "conv1.weight" in state:
        state["conv1.weight"] = weights_of.widened(state["conv1.weight"], others)
        provenance += f", random filters of {others.shape[1]} input channels"
    names = ("conv1", "bn1", "relu", "body")
    part = nn.ModuleDict({name: getattr(trunk, name) for name in names})
    weights_of.fit(part, state, provenance)
    return provenance
