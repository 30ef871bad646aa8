"""What an encoder starts from: a trained one, a trained trunk, or codes like the generator's own.

These keys of the `encoder` group are the builder's: a constructor reads no file. They are read at
the beginning of a training only, since a checkpoint or a bundle has all weights itself.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig
from torch import Tensor, nn

from ganinv.backbone.irse import Trunk, load_trunk
from ganinv.backbone.resnet34 import ResNet34Trunk, load_resnet34
from ganinv.backbone.weights import locate
from ganinv.core.errors import ConfigError, explain
from ganinv.core.interface import Generator
from ganinv.core.latent import repeat_w
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.interop.start import encoder_file, start_from

log = logging.getLogger(__name__)

START: dict[str, Any] = {  # key of the encoder group -> what it may be
    "weights": str | None,
    "trunk_weights": str | None,
    "init_std_scale": float | None,
}


def check_start(cfg: DictConfig) -> None:
    """Refuse what the encoder cannot start from, before anything is loaded.

    Raises:
        ConfigError: two starts at once, or one that this encoder does not have.
        WeightsMissing: a file that is not there.
    """
    node = cfg.get("encoder")
    if node is None:
        return
    weights, trunk, scale = (node.get(key) for key in START)
    kind = get_object(node["_target_"])
    if weights is not None and scale is not None:
        raise ConfigError(
            explain("encoder.weights with encoder.init_std_scale", "one of them: either says how "
                    "codes start", "set encoder.init_std_scale=null")
        )  # fmt: skip
    if weights is not None:
        encoder_file(weights)
    elif trunk is not None and inspect.isclass(kind):
        locate(_trunk_of(kind)[0], trunk)
    if scale is not None and not hasattr(kind, "start_codes"):
        raise ConfigError(
            explain(f"encoder.init_std_scale={scale} with {kind.__name__}",
                    "an encoder that ends in a normalisation, as IDInvert's do",
                    "set encoder.init_std_scale=null")
        )  # fmt: skip


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
        _trunk_of(type(encoder))[1](encoder, trunk_weights)
    elif isinstance(encoder, Trunk | ResNet34Trunk):
        log.warning("trunk: random weights (encoder.trunk_weights=null)")
    if init_std_scale is not None:
        mean, deviation = statistics_of_codes(generator)
        encoder.start_codes(mean, init_std_scale * deviation)  # type: ignore[operator]


def _trunk_of(kind: type) -> tuple[str, Callable[..., str]]:
    """The name of a class's trunk in the catalogue of weights, and what fills it."""
    if issubclass(kind, ResNet34Trunk):
        return "resnet34", load_resnet34
    if issubclass(kind, Trunk):
        return "arcface_ir_se50", load_trunk
    raise ConfigError(
        explain(f"encoder.trunk_weights with {kind.__name__}, which has no trunk of these",
                "an encoder on IR-SE or ResNet-34", "set encoder.trunk_weights=null")
    )  # fmt: skip


@torch.no_grad()
def statistics_of_codes(generator: Generator, samples: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [L,D] of wp over samples of z, the same in every run."""
    z = randn_rows(
        [derive_seed("spread of w")], (samples, generator.z_dim), generator.w_avg.device
    )[0]
    wp = repeat_w(generator.mapping(z), generator.num_ws)
    return wp.mean(0), wp.std(0)
