"""A probe's file with its backbone: of ganinv's own, by its name in conf/backbone."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ganinv.backbone.probe import Probe, open_probe, read_heads
from ganinv.config.allowed import ALLOWED
from ganinv.core.errors import ConfigError, explain, named


def backbone(name: str) -> nn.Module:
    """The network of that name, frozen, with the weights that are found for it.

    Raises:
        ConfigError: no such network.
        WeightsMissing, WeightsError: as its constructor.
    """
    known = {make.__qualname__: make for make in ALLOWED["backbone"].values()}
    if name not in known:
        raise ConfigError(
            explain(f"the backbone {named(name)}", f"one of {', '.join(sorted(known))}",
                    "choose one of conf/backbone")
        )  # fmt: skip
    network: nn.Module = known[name](weights=None)
    return network


def load_probe(path: str | Path) -> Probe:
    """The probe of a file of `ganinv fit probe`.

    Raises:
        WeightsMissing, WeightsError: as `open_probe`.
        ConfigError: on a backbone that ganinv has not.
    """
    path = Path(path)
    return open_probe(path, backbone(read_heads(path)[0].backbone))
