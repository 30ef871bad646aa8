"""What an encoder starts from: a trained one, a trained trunk, or codes like the generator's own.

These keys of the `encoder` group are the builder's: a constructor reads no file. They are read at
the beginning of a training only, since a checkpoint or a bundle has all weights itself. What cannot
work is refused here, without torch; `start_encoder.py` does the rest.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from ganinv.backbone.catalogue import locate
from ganinv.config.source import ancestors, has_method
from ganinv.core.errors import ConfigError, explain
from ganinv.interop.encoder_file import encoder_file

START: dict[str, Any] = {  # key of the encoder group -> what it may be
    "weights": str | None,
    "trunk_weights": str | None,
    "init_std_scale": float | None,
}
TRUNKS = {  # a class with a trunk -> the trunk's name in the catalogue of weights
    "ganinv.backbone.resnet34.ResNet34Trunk": "resnet34",
    "ganinv.backbone.irse.Trunk": "arcface_ir_se50",
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
    target = node["_target_"]
    kind = target.rpartition(".")[2]
    if weights is not None and scale is not None:
        raise ConfigError(
            explain("encoder.weights with encoder.init_std_scale", "one of them: either says how "
                    "codes start", "set encoder.init_std_scale=null")
        )  # fmt: skip
    if weights is not None:
        encoder_file(weights)
    elif trunk is not None:
        found = next((TRUNKS[name] for name in ancestors(target) if name in TRUNKS), None)
        if found is None:
            raise no_trunk(kind)
        locate(found, trunk)
    if scale is not None and not has_method(target, "start_codes"):
        raise ConfigError(
            explain(f"encoder.init_std_scale={scale} with {kind}",
                    "an encoder that ends in a normalisation, as IDInvert's do",
                    "set encoder.init_std_scale=null")
        )  # fmt: skip


def no_trunk(kind: str) -> ConfigError:
    """The refusal of trunk weights for a class that has no such trunk."""
    return ConfigError(
        explain(f"encoder.trunk_weights with {kind}, which has no trunk of these",
                "an encoder on IR-SE or ResNet-34", "set encoder.trunk_weights=null")
    )  # fmt: skip
