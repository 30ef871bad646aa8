"""EfficientNet-Lite0 recognises things, and its folded form is the released network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from skimage.transform import resize
from torch import Tensor

from ganinv.backbone import weights
from ganinv.backbone.efficientnet_lite0 import EfficientNetLite0, efficientnet_lite0
from ganinv.core.errors import WeightsError


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return efficientnet_lite0(weights=None)


def picture(array: np.ndarray) -> Tensor:
    """uint8 [H,W(,3)] -> the central square, [1,3,224,224] in [-1,1]."""
    rgb = np.stack([array] * 3, -1) if array.ndim == 2 else array
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = resize(rgb[top : top + side, left : left + side], (224, 224), anti_aliasing=True)
    return torch.from_numpy(square).float().permute(2, 0, 1).unsqueeze(0) * 2 - 1


@pytest.mark.parametrize(
    ("name", "classes"),
    [("chelsea", {281, 282, 285}), ("coffee", {967}), ("camera", {872}), ("rocket", {657, 744})],
)
def test_recognises(network: EfficientNetLite0, name: str, classes: set[int]) -> None:
    """Cats (tabby, tiger, Egyptian), espresso, tripod, missile or projectile."""
    scores = network(picture(getattr(skimage.data, name)()))
    assert int(scores.argmax()) in classes


def test_folded_equals_released() -> None:
    released = EfficientNetLite0()
    weights.fit(released, weights.load("efficientnet_lite0")[0], "the package's file")
    released.eval()
    image = torch.rand(2, 3, 64, 96) * 2 - 1
    folded = efficientnet_lite0(weights=None)
    torch.testing.assert_close(folded(image), released(image), rtol=1e-4, atol=1e-4)


def test_shapes_and_frozen(network: EfficientNetLite0) -> None:
    image = torch.zeros(2, 3, 64, 64, requires_grad=True)
    shapes = [tuple(s.shape) for s in network.stages(image)]
    assert shapes == [
        (2, c, 64 // s, 64 // s) for c, s in ((16, 2), (24, 4), (40, 8), (112, 16), (320, 32))
    ]
    network.features(image).sum().backward()
    assert image.grad is not None and image.grad.any()
    assert not any(p.requires_grad for p in network.parameters()) and not network.training


def test_odd_sizes_are_padded_as_in_tensorflow(network: EfficientNetLite0) -> None:
    assert network.stages(torch.zeros(1, 3, 75, 65))[-1].shape == (1, 320, 3, 3)


def test_another_file(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="EfficientNetLite0"):
        efficientnet_lite0(weights=str(tmp_path / "x.pth"))
