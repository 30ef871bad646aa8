"""VGG16 up to relu4_3 with the weights and the preprocessing of Caffe, as IDInvert uses it.

Source: Simonyan & Zisserman, arXiv 1409.1556; weights as converted from Keras by
genforce/idinvert_pytorch (`vgg16.pth`, keys `layer0` to `layer28`, of which `layer0` to `layer21`
are read here).

    x [B,3,H,W] RGB in [-1,1] -> BGR in [0,255] minus (103.939, 116.779, 123.68), no division

torchvision's VGG16 is another training on other inputs: weights of a loss do not carry over.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.backbone import weights as weights_of

# layer number in the file: (channels in, channels out); a 2x2 maximum goes before those in POOLED
CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    17: (256, 512),
    19: (512, 512),
    21: (512, 512),
}
POOLED = {5, 10, 17}
MEAN_BGR = (103.939, 116.779, 123.68)


class VGG16Caffe(nn.Module):
    """The architecture; `vgg16_caffe` gives it trained."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        for number, (ci, co) in CONVOLUTIONS.items():
            setattr(self, f"layer{number}", nn.Conv2d(ci, co, 3, padding=1))
        self.register_buffer("mean", torch.tensor(MEAN_BGR)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """image [B,3,H,W] RGB in [-1,1] -> relu4_3 [B,512,H/8,W/8]."""
        x = (image.flip(1) + 1) * 127.5 - self.mean
        for number in CONVOLUTIONS:
            if number in POOLED:
                x = F.max_pool2d(x, 2)
            x = F.relu(getattr(self, f"layer{number}")(x))
        return x


def vgg16_caffe(*, weights: str | None) -> VGG16Caffe:
    """VGG16 to relu4_3, frozen, in eval mode.

    Args:
        weights: path of `vgg16.pth`; None looks for it in $GANINV_WEIGHTS and torch's cache.

    Raises:
        WeightsMissing, WeightsError: no such file; one of another network.
    """
    state, provenance = weights_of.load("vgg16_caffe", weights)
    network = VGG16Caffe()
    unused = tuple(f"layer{number}." for number in (24, 26, 28))
    state = {key: value for key, value in state.items() if not key.startswith(unused)}
    weights_of.fit(network, state, provenance)
    return network.eval().requires_grad_(False)
