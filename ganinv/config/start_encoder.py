"""Filling a fresh encoder with what it starts from, which `start.py` has checked."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from ganinv.backbone.irse import Trunk, load_trunk
from ganinv.backbone.resnet34 import ResNet34Trunk, load_resnet34
from ganinv.config.start import no_trunk
from ganinv.core.interface import Generator
from ganinv.core.latent import repeat_w
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.interop.start import start_from

log = logging.getLogger(__name__)


def start_encoder(
    encoder: nn.Module,
    generator: Generator,
    weights: str | None = None,
    trunk_weights: str | None = None,
    init_std_scale: float | None = None,
) -> None:
    """Fill a fresh encoder with what it starts from.

    Args:
        encoder: E, with random weights.
        generator: G, whose codes E's are to resemble.
        weights: the file of a trained encoder (`ganinv/interop/start.py`), which fills all of it.
        trunk_weights: the file of its trunk; None keeps the random weights.
        init_std_scale: E's codes start with w's mean and this many standard deviations of it.

    Raises:
        ConfigError, WeightsMissing, WeightsError: as `check_start`; or the file does not fit.
    """
    if weights is not None:
        start_from(encoder, weights)
    elif trunk_weights is not None:
        _fill_trunk(encoder, trunk_weights)
    elif isinstance(encoder, Trunk | ResNet34Trunk):
        log.warning("trunk: random weights (encoder.trunk_weights=null)")
    if init_std_scale is not None:
        mean, deviation = statistics_of_codes(generator)
        encoder.start_codes(mean, init_std_scale * deviation)  # type: ignore[operator]


def _fill_trunk(encoder: nn.Module, path: str) -> None:
    if isinstance(encoder, ResNet34Trunk):
        load_resnet34(encoder, path)
    elif isinstance(encoder, Trunk):
        load_trunk(encoder, path)
    else:
        raise no_trunk(type(encoder).__name__)


@torch.no_grad()
def statistics_of_codes(generator: Generator, samples: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [L,D] of wp over samples of z, the same in every run."""
    z = randn_rows(
        [derive_seed("spread of w")], (samples, generator.z_dim), generator.w_avg.device
    )[0]
    wp = repeat_w(generator.mapping(z), generator.num_ws)
    return wp.mean(0), wp.std(0)
