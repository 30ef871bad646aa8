"""Every per-image method with few steps on the tiny models."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from ganinv.encoder.base_code import BaseCodeEncoder
from ganinv.inversion.bdinvert import BDInvert
from ganinv.inversion.clone import Clone
from ganinv.inversion.domain_regularised import DomainRegularised
from ganinv.inversion.encode import Encode
from ganinv.inversion.image2stylegan import Image2StyleGAN
from ganinv.inversion.noise_maps import NoiseMaps
from ganinv.inversion.projector import Projector
from ganinv.inversion.pti import PTI
from ganinv.loss.pyramid import LaplacianPyramid
from tests.inversion import tiny


def image2stylegan(model, kind=Image2StyleGAN, **other):
    settings = {"space": "w+", "start": "w_avg", "steps": 12, "lr": 0.05, "mse_weight": 1.0,
                "perceptual_weight": 0.5, "perceptual": tiny.perceptual(),
                "perceptual_side": None}  # fmt: skip
    return kind(model=model, **settings | other)


def projector(model, **other):
    settings = {"start": "w_avg", "steps": 12, "lr": 0.1, "ramp_down": 0.25, "ramp_up": 0.05,
                "w_noise": 0.05, "w_noise_ramp": 0.75, "noise_reg": 10.0, "samples": 200,
                "perceptual_weight": 1.0, "perceptual": tiny.perceptual(),
                "perceptual_side": None}  # fmt: skip
    return Projector(model=model, **settings | other)


def domain_regularised(model, **other):
    settings = {"start": Encode(model=model), "steps": 12, "lr": 0.02, "mse_weight": 1.0,
                "perceptual_weight": 0.5, "perceptual": tiny.perceptual(), "perceptual_side": None,
                "domain_weight": 2.0}  # fmt: skip
    return DomainRegularised(model=model, **settings | other)


def noise_maps(model, **other):
    settings = {"start": Encode(model=model), "steps": 8, "lr": 0.1, "mse_weight": 1.0}
    return NoiseMaps(model=model, mse_around_weight=1.0, **settings | other)


def pti(model, **other):
    settings = {"pivot": Encode(model=model), "steps": 6, "lr": 0.01, "mse_weight": 1.0,
                "perceptual_weight": 1.0, "perceptual": tiny.perceptual(),
                "perceptual_side": None,
                "threshold": None, "locality_weight": 0.1, "locality_samples": 1,
                "locality_alpha": 3.0, "shared": False}  # fmt: skip
    return PTI(model=model, **settings | other)


def bdinvert(model, **other):
    settings = {"base_code": base_code_file(model), "start": "w_avg", "steps": 8, "lr": 0.02,
                "mse_weight": 1.0, "perceptual": tiny.perceptual(), "perceptual_weight": 1.0,
                "perceptual_side": 8, "base_weight": 1.0, "p_norm_weight": 0.01, "samples": 200,
                "floor": 1e-5}  # fmt: skip
    return BDInvert(model=model, **settings | other)


def clone(model, **other):
    settings = {"pivot": Encode(model=model), "steps": 10, "lr": 0.01, "epsilon": None,
                "pyramid": LaplacianPyramid(weight=1.0, levels=2, growth=1.0),
                "adversarial_weight": 0.05, "local_probability": 0.7, "global_weight": 0.5,
                "global_batch": 2, "r1_gamma": 1.0, "r1_every": 2, "critic": tiny.critic(model),
                "real_images": None}  # fmt: skip
    return Clone(model=model, **settings | other)


def base_code_file(model, side=8, channels=4, **other):
    """What a method=bdinvert training writes, random weights: of 64 px, or 128 for side 16."""
    node = {"_target_": "ganinv.encoder.base_code.BaseCodeEncoder", "side": side,
            "channels": channels, "input_nc": 3, "channel_base": 4, "channel_max": 8}  # fmt: skip
    torch.manual_seed(3)
    encoder = BaseCodeEncoder(**{k: v for k, v in node.items() if k != "_target_"})
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    state = {f"E.{name}": value for name, value in encoder.state_dict().items()}
    content = {"ganinv": {"config": {"encoder": node}} | other, "state_dict": state}
    path = Path(tempfile.mkdtemp()) / "base.ckpt"
    torch.save(content, path)
    return str(path)


METHODS = {
    "image2stylegan w+": image2stylegan,
    "image2stylegan w, random": lambda m: image2stylegan(m, space="w", start="random"),
    "image2stylegan z": lambda m: image2stylegan(m, space="z", start="random"),
    "projector": projector,
    "domain_regularised": domain_regularised,
    "noise_maps": noise_maps,
    "pti": pti,
    "clone": clone,
}


def parts(found):
    yield "wp", found.wp
    for name in ("f",):
        if getattr(found, name) is not None:
            yield name, getattr(found, name)
    for group in (found.noise or {}, found.weights or {}):
        yield from group.items()
