"""What a file's config may build: ganinv's own constructors, listed by group, and nothing else.

A checkpoint or a bundle names its parts by `_target_`, and whoever wrote the file chose the names.
They are looked up here, never imported. A yaml of conf/ whose class is not listed trains all the
same, for what the user composes is the user's own; its checkpoints open once the class is listed.
A test holds this list against conf/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Adam

from ganinv.backbone.efficientnet_lite0 import efficientnet_lite0
from ganinv.backbone.irse import arcface
from ganinv.backbone.moco import moco_resnet50
from ganinv.backbone.vgg16 import vgg16_caffe
from ganinv.dataset.module import AvatarData, ShardData
from ganinv.dataset.moved import MovedAvatarData
from ganinv.dataset.synthetic import SyntheticData
from ganinv.discriminator.latent import LatentDiscriminator
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.encoder.base_code import BaseCodeEncoder
from ganinv.encoder.e4e import Encoder4Editing
from ganinv.encoder.idinvert import DomainGuidedEncoder, DomainGuidedEncoder5x5
from ganinv.encoder.psp import GradualStyleEncoder, WEncoder, WPlusEncoder
from ganinv.encoder.restyle import (
    ReStyleEncoder,
    ReStyleEncoder4Editing,
    ReStyleResNetEncoder,
    ReStyleResNetEncoder4Editing,
)
from ganinv.generator.importer.load import load_generator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.loss.feature import Feature
from ganinv.loss.identity import Identity
from ganinv.loss.latent import Delta, LatentAdversarial, LatentNorm
from ganinv.loss.lpips import LPIPS
from ganinv.loss.perceptual import Perceptual
from ganinv.loss.pixel import L2
from ganinv.loss.pyramid import LaplacianPyramid
from ganinv.loss.region import Region
from ganinv.loss.similarity import Similarity
from ganinv.method.bdinvert import BDInvert
from ganinv.method.e4e import E4E
from ganinv.method.gan import GAN
from ganinv.method.idinvert import IDInvert
from ganinv.method.psp import PSp
from ganinv.method.restyle import ReStyleE4E, ReStylePSp
from ganinv.metric.change import EqualChange
from ganinv.metric.consistency import LEC
from ganinv.metric.distance import Distance
from ganinv.metric.distortion import Distortion
from ganinv.metric.edit_fid import EditFID
from ganinv.metric.equivariance import Equivariance
from ganinv.metric.fid import FID, KID
from ganinv.metric.ms_ssim import MSSSIM
from ganinv.metric.path_length import PathLength
from ganinv.metric.semantics import Semantics
from ganinv.optimizer.ranger import Ranger
from ganinv.task.frontalisation import Frontalisation
from ganinv.task.image import Image
from ganinv.task.paired import Segmentation, Sketch, Translation
from ganinv.task.super_resolution import SuperResolution

Constructor = Callable[..., Any]


def _named(constructors: Iterable[Any]) -> dict[str, Constructor]:
    return {f"{c.__module__}.{c.__qualname__}": c for c in constructors}


ALLOWED: dict[str, dict[str, Constructor]] = {
    "backbone": _named((arcface, efficientnet_lite0, moco_resnet50, vgg16_caffe)),
    "dataset": _named((AvatarData, MovedAvatarData, ShardData, SyntheticData)),
    "discriminator": _named((LatentDiscriminator, StyleGAN2Discriminator)),
    "encoder": _named(
        (
            BaseCodeEncoder,
            DomainGuidedEncoder,
            DomainGuidedEncoder5x5,
            Encoder4Editing,
            GradualStyleEncoder,
            ReStyleEncoder,
            ReStyleEncoder4Editing,
            ReStyleResNetEncoder,
            ReStyleResNetEncoder4Editing,
            WEncoder,
            WPlusEncoder,
        )
    ),
    "generator": _named((StyleGAN2Generator, load_generator)),
    "loss": _named(
        (
            Delta,
            Feature,
            Identity,
            L2,
            LPIPS,
            LaplacianPyramid,
            LatentAdversarial,
            LatentNorm,
            Perceptual,
            Region,
            Similarity,
        )
    ),
    "method": _named((BDInvert, E4E, GAN, IDInvert, PSp, ReStyleE4E, ReStylePSp)),
    "metric": _named(
        (
            Distance,
            Distortion,
            EditFID,
            EqualChange,
            Equivariance,
            FID,
            KID,
            LEC,
            MSSSIM,
            PathLength,
            Semantics,
        )
    ),
    "optimizer": _named((Ranger,)) | {"torch.optim.Adam": Adam},
    "task": _named((Frontalisation, Image, Segmentation, Sketch, SuperResolution, Translation)),
}
NESTED: dict[str, tuple[str, ...]] = {  # group -> groups of the parts that its parts may hold
    "loss": ("backbone", "loss"),
    "method": ("metric", "optimizer"),
    "metric": ("backbone", "loss"),
}
FACTORIES: tuple[Constructor, ...] = (  # what they are called with exists only at run time
    Adam,
    LatentDiscriminator,
    Ranger,
)
