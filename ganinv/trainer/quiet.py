"""Silences messages of Lightning that ganinv's users cannot act on.

Its notes on devices, its advice on loops that ganinv replaces (weights_only, networks in eval
mode, frozen ones among them) and its advertisements. Errors still come through.
"""

from __future__ import annotations

import logging
import warnings

SPEAKERS = ("pytorch_lightning", "lightning", "lightning_fabric", "lightning.pytorch")


def quieten() -> None:
    """Let Lightning speak of errors only."""
    for name in SPEAKERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("pytorch_lightning", "lightning_fabric", "lightning"):
        warnings.filterwarnings("ignore", module=rf"{module}\..*")
