"""LPIPS v0.1 (pSp eq. 2), from the `lpips` package, with the trunk's weights from this machine.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features", arXiv 1801.03924.

Differs from the package in: the ImageNet trunk is read from a local file and never downloaded or
left random; the linear heads are frozen like the trunk; where all features are 0, so is their
gradient.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganinv.backbone import weights as weights_of
from ganinv.core.errors import ConfigError, explain
from ganinv.loss.term import Term

FILES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}


class LPIPS(Term):
    """LPIPS of x_hat and x in [-1,1], [B].

    Args:
        weight: factor in the total.
        net: "alex" (pSp, e4e), "vgg" or "squeeze".
        weights: path of torchvision's ImageNet weights of that network; None looks in the usual
            places (`ganinv.backbone.catalogue`).

    Raises:
        WeightsMissing, WeightsError: no such file; one of another network.
        ConfigError: an unknown net.
    """

    reads = ("x_hat", "x")

    def __init__(
        self, *, weight: float, net: Literal["alex", "vgg", "squeeze"], weights: str | None
    ) -> None:
        super().__init__(weight=weight)
        if net not in FILES:
            raise ConfigError(explain(f"net={net!r}", "alex, vgg or squeeze", "set loss.lpips.net"))
        state, self.source = weights_of.load(FILES[net], weights)
        package = importlib.import_module("lpips")  # slow to import, and wanted by this term alone
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it calls torchvision by an older name
            self.network = package.LPIPS(net=net, pnet_rand=True, verbose=False)
        _fill_trunk(self.network.net, state, self.source)
        self.network.eval().requires_grad_(False)

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,3,H,W] -> [B]; no gradient reaches the target x."""
        return self.compare(x_hat, self.remember(x))

    @torch.no_grad()
    def remember(self, x: Tensor) -> list[Tensor]:
        """x [B,3,H,W] -> y, one [B,Cl,hl,wl] a layer."""
        return self._stages(x)

    def compare(self, x_hat: Tensor, remembered: Sequence[Tensor]) -> Tensor:
        """x_hat [B,3,H,W] against y -> [B]."""
        stages = zip(self.network.lins, self._stages(x_hat), remembered, strict=True)
        return torch.stack(
            [head((y_hat - y).square()).mean((1, 2, 3)) for head, y_hat, y in stages]
        ).sum(0)

    def _stages(self, image: Tensor) -> list[Tensor]:
        """Features of unit length; where all are 0, so is their gradient (the package: NaN)."""
        maps = self.network.net(self.network.scaling_layer(image))
        return [y / ((y.square().sum(1, keepdim=True) + 1e-20).sqrt() + 1e-10) for y in maps]


def _fill_trunk(trunk: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy torchvision's `features.N.*` into the package's `sliceK.N.*`; N is the same."""
    renamed = {}
    for key in trunk.state_dict():
        layer = "features." + key.split(".", 1)[1]
        if layer in state:
            renamed[key] = state[layer]
    weights_of.fit(trunk, renamed, source)
