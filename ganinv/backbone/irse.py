"""IR-SE: the residual squeeze-and-excitation trunk of the face encoders, and ArcFace upon it.

Sources: Deng et al., "ArcFace", arXiv 1801.07698; Hu et al., "Squeeze-and-Excitation", 1709.01507.
The state dict has exactly the keys of the public `model_ir_se50.pth`, so reading and writing that
format is the identity.

    image [B,C,H,W] in [-1,1]
    c1 [B,128,H/4,W/4]  c2 [B,256,H/8,W/8]  c3 [B,512,H/16,W/16]   the taps (widths of ir_se50)

Differs from the released code in: the shortcut of an unstrided unit is the identity, not a copying
1x1 max-pool; `ir_se_small` is a trunk of the same family for images of 64 px.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ganinv.backbone import weights as weights_of
from ganinv.core.errors import ConfigError, explain

log = logging.getLogger(__name__)

SE_REDUCTION = 16


@dataclass(frozen=True)
class Plan:
    """Shape of a trunk: the strides of the stem and the stages, and the images it admits."""

    stem: tuple[int, int]  # (channels, stride)
    stages: tuple[tuple[int, int], ...]  # (channels, units); each stage's first unit halves the map
    input_sizes: tuple[tuple[int, int], ...]  # (H, W) px

    @property
    def widths(self) -> tuple[int, int, int]:
        """Channels of the three taps, the ends of the last three stages."""
        c1, c2, c3 = (channels for channels, _ in self.stages[-3:])
        return c1, c2, c3


PLANS = {
    "ir_se50": Plan(
        stem=(64, 1),
        stages=((64, 3), (128, 4), (256, 14), (512, 3)),
        input_sizes=((256, 256), (192, 256)),
    ),
    "ir_se_small": Plan(
        stem=(32, 2),
        stages=((48, 2), (96, 3), (128, 2)),
        input_sizes=((64, 64),),
    ),
}


class SqueezeExcitation(nn.Module):
    """x [B,C,h,w] times a gate [B,C] computed from its spatial mean, plus a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SE_REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // SE_REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """[B,C,h,w], [B,C,h,w] -> [B,C,h,w]."""
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return torch.addcmul(shortcut, x, torch.sigmoid(gate))


class Unit(nn.Module):
    """x [B,Ci,h,w] -> shortcut(x) + residual(x) [B,Co,h/stride,w/stride], not activated."""

    def __init__(self, ci: int, co: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module
        if ci != co:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(ci, co, 1, stride, bias=False), nn.BatchNorm2d(co)
            )
        else:
            self.shortcut_layer = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(ci),
            nn.Conv2d(ci, co, 3, 1, 1, bias=False),
            nn.PReLU(co),
            nn.Conv2d(co, co, 3, stride, 1, bias=False),
            nn.BatchNorm2d(co),
            SqueezeExcitation(co),
        )

    def forward(self, x: Tensor) -> Tensor:
        """One bottleneck."""
        *convolutions, gate = self.res_layer
        residual = x
        for layer in convolutions:
            residual = layer(residual)
        y: Tensor = gate(residual, self.shortcut_layer(x))
        return y


class Trunk(nn.Module):
    """`input_layer` and `body`; networks built on the trunk inherit them, and so their keys."""

    rgb_first = False  # whether an input of more than three channels begins with RGB

    def __init__(self, plan: Plan, input_nc: int) -> None:
        super().__init__()
        width, stride = plan.stem
        self.input_layer = nn.Sequential(
            nn.Conv2d(input_nc, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
        )
        units: list[Unit] = []
        ends = []
        for channels, count in plan.stages:
            for i in range(count):
                units.append(Unit(width, channels, stride=2 if i == 0 else 1))
                width = channels
            ends.append(len(units) - 1)
        self.body = nn.Sequential(*units)
        self.tap_at = ends[-3:]

    def taps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image [B,C,H,W] -> (c1, c2, c3), fine to coarse."""
        x = self.input_layer(image)
        taps = []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in self.tap_at:
                taps.append(x)
        c1, c2, c3 = taps
        return c1, c2, c3


def plan_of(trunk: str, input_size: tuple[int, int]) -> Plan:
    """The plan of the trunk called `trunk`, for images of `input_size` (H, W).

    Raises:
        ConfigError: no such trunk, or one that does not admit this size. The sizes are a closed
            list because the map-to-style heads fold any other map into the batch axis unnoticed.
    """
    if trunk not in PLANS:
        raise ConfigError(
            explain(f"trunk={trunk!r}", f"one of {', '.join(PLANS)}", "set encoder.trunk")
        )
    plan = PLANS[trunk]
    if input_size not in plan.input_sizes:
        admitted = " or ".join(f"{h}x{w}" for h, w in plan.input_sizes)
        others = [name for name, other in PLANS.items() if input_size in other.input_sizes]
        todo = (
            f"set encoder.trunk={others[0]}" if others else "resize the images (dataset.image_size)"
        )
        raise ConfigError(
            explain(
                f"images of {input_size[0]}x{input_size[1]} px (height x width) for trunk {trunk}",
                f"{admitted} px",
                todo,
            )
        )
    return plan


def load_trunk(trunk: Trunk, path: str) -> str:
    """Fill a trunk from an ArcFace file (its `output_layer` is left aside); returns the provenance.

    Args:
        trunk: an IR-SE trunk. When its input is not RGB, its input layer keeps its random weights;
            when it begins with RGB (`rgb_first`), only its filters of the other channels do.
        path: `model_ir_se50.pth`.

    Raises:
        WeightsMissing, WeightsError: no such file; one of another architecture.
    """
    state, provenance = weights_of.load("arcface_ir_se50", path)
    state = {k: v for k, v in state.items() if k.startswith(("input_layer.", "body."))}
    first = trunk.input_layer[0]
    assert isinstance(first, nn.Conv2d)
    rgb = first.in_channels == 3 or trunk.rgb_first
    if rgb and first.in_channels > 3 and "input_layer.0.weight" in state:
        others = first.weight.detach()[:, 3:]
        rgb_filters = state["input_layer.0.weight"]
        state["input_layer.0.weight"] = weights_of.widened(rgb_filters, others)
        provenance += f", random filters of {others.shape[1]} input channels"
    elif not rgb:
        log.warning("trunk: the input layer is random, as the input has not three channels")
        provenance += ", random input_layer"
    for name in ("input_layer", "body") if rgb else ("body",):
        part = {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(f"{name}.")}
        weights_of.fit(getattr(trunk, name), part, provenance)
    return provenance


class ArcFaceNet(Trunk):
    """ArcFace's IR-SE50: a face [B,3,112,112] in [-1,1] -> its embedding [B,512] of unit length."""

    def __init__(self) -> None:
        super().__init__(PLANS["ir_se50"], input_nc=3)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512),
        )

    def forward(self, face: Tensor) -> Tensor:
        """[B,3,112,112] -> [B,512]."""
        return F.normalize(self.output_layer(self.body(self.input_layer(face))))


def arcface(*, weights: str | None) -> ArcFaceNet:
    """ArcFace with its published weights, frozen, in eval mode.

    Args:
        weights: path or name of `model_ir_se50.pth`; None looks in the usual places.

    Raises:
        WeightsMissing, WeightsError: no such file; one of another architecture.
    """
    state, provenance = weights_of.load("arcface_ir_se50", weights)
    with torch.device("meta"):
        network = ArcFaceNet()
    network.to_empty(device="cpu")
    weights_of.fit(network, state, provenance)
    return folded(network.eval()).requires_grad_(False)


def folded(network: ArcFaceNet) -> ArcFaceNet:
    """A network in eval mode whose normalisations, where they follow a convolution or the linear
    layer, are made part of its weights: 29 of its 54. It computes the same but for rounding, and
    can no longer be trained or written to a file."""
    parts: Any = network  # whose types are those of its parts
    stem, normalise, act = parts.input_layer
    network.input_layer = nn.Sequential(fuse_conv_bn_eval(stem, normalise), act)
    for unit in parts.body:
        *first, conv, normalise, gate = unit.res_layer
        unit.res_layer = nn.Sequential(*first, fuse_conv_bn_eval(conv, normalise), gate)
        if isinstance(unit.shortcut_layer, nn.Sequential):
            unit.shortcut_layer = fuse_conv_bn_eval(*unit.shortcut_layer)
    before, _dropout, flatten, linear, normalise = parts.output_layer
    network.output_layer = nn.Sequential(before, flatten, fuse_linear_bn_eval(linear, normalise))
    return network
