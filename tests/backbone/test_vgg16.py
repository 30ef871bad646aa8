"""VGG16 as IDInvert uses it: torchvision's architecture, Caffe's preprocessing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from ganinv.backbone.vgg16 import CONVOLUTIONS, vgg16_caffe
from ganinv.core.errors import WeightsError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A file of the published layout with random weights, and torchvision's network with them."""
    torch.manual_seed(0)
    features = vgg16(weights=None).features
    convolutions = [m for m in features if isinstance(m, nn.Conv2d)]
    numbers = [*CONVOLUTIONS, 24, 26, 28]
    state: dict[str, Tensor] = {}
    for number, convolution in zip(numbers, convolutions, strict=True):
        state[f"layer{number}.weight"] = convolution.weight.detach()
        state[f"layer{number}.bias"] = convolution.bias.detach()
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(state, path)
    return path, features[:23]  # ends with the ReLU of conv4_3


def test_relu4_3_of_bgr_in_255(file: tuple[Path, nn.Module]) -> None:
    network = vgg16_caffe(weights=str(file[0]))
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    rgb = (x + 1) / 2 * 255
    mean = torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    bgr = torch.stack([rgb[:, 2], rgb[:, 1], rgb[:, 0]], 1) - mean
    with torch.no_grad():
        expected = file[1](bgr)
    found = network(x)
    assert found.shape == (2, 512, 4, 6) and found.std() > 0
    torch.testing.assert_close(found, expected)
    assert not any(p.requires_grad for p in network.parameters())


def test_torchvision_s_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"no layer0.weight"):
        vgg16_caffe(weights=str(path))
