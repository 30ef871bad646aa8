"""The range of every number in a config, by its key: one table for all constructors.

What a number means is its constructor's to say (the docstring has the unit); here stands what it
may be, so that a wrong one is refused before anything is loaded, and so that a file cannot ask for
a network of any size. The upper ends are far beyond what anybody trains.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """low <= value <= high; `above`: low itself is not in it; `also`: single values beside it."""

    low: float
    high: float
    above: bool = False
    also: tuple[int, ...] = ()

    def fault(self, value: float, kind: str) -> str | None:
        """What was expected instead of `value`, None where it lies in the range.

        Args:
            value: any number; NaN lies in no range.
            kind: "a number" or "a whole number".
        """
        if value in self.also or (self.low < value <= self.high):
            return None
        if value == self.low and not self.above:
            return None
        return f"{kind} of at most {self.high:,}" if value > self.high else self.words(kind)

    def words(self, kind: str) -> str:
        """The lower end in words, which is what people get wrong."""
        end = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        also = "".join(f", or {value}" for value in self.also)
        return f"{kind} {end}{also}"


IMAGES = Range(1, 10**12)  # a count of images, of steps or of processes' ranks
COUNT = Range(0, 10**12)
SIZE = Range(1, 2**16)  # channels, layers, pixels
FACTOR = Range(0, 1e9)
RATE = Range(0, 1e3, above=True)
KIMG = Range(0, 1e9, above=True)
SHARE = Range(0, 1)

RANGES: dict[str, Range] = {
    # clock and length
    **dict.fromkeys(("max_kimg", "val_every_kimg", "save_every_kimg", "ema_kimg"), KIMG),
    **dict.fromkeys(
        (
            "log_every_images",
            "decay_every",
            "progressive_every",
            "r1_every",
            "reg_interval",
            "reference_batch_size",
            "max_nonfinite",
            "limit",
        ),
        IMAGES,
    ),
    **dict.fromkeys(("progressive_start", "compare_ranks_every"), COUNT),
    "rate_decay": SHARE,
    "refinements": Range(1, 1000),
    "keep_best": Range(0, 10**6),
    "timeout_minutes": Range(0, 1e6, above=True),
    "bucket_mb": Range(0, 2**16, above=True),
    "seed": Range(0, 2**32 - 1),
    # processes
    "devices": Range(1, 4096, also=(-1,)),
    "num_nodes": Range(1, 4096),
    "threads": Range(1, 4096),
    "num_workers": Range(0, 4096),
    "micro_batches": SIZE,
    # data
    **dict.fromkeys(("batch_size", "pictures"), SIZE),
    "window": IMAGES,
    **dict.fromkeys(("num_train", "num_val", "num_test"), Range(1, 10**7)),
    "generator_resolutions": Range(4, 2**14),
    "image_size": Range(4, 2**14),
    "regions": Range(0, 2**14),
    "region": Range(0, 2**14),
    "max_bad_fraction": SHARE,
    "shift": Range(-(2**14), 2**14),
    "angle": Range(-360, 360),
    "cache_gib": FACTOR,
    "psi": Range(-10, 10),
    "cutoff": Range(0, 1024),
    "classes": Range(2, 256),
    "factors": Range(1, 1024),
    # networks
    **dict.fromkeys(("num_ws", "mapping_layers", "layers"), Range(1, 64)),
    "wp_layers": Range(0, 63),
    "component": Range(0, 2**12),
    **dict.fromkeys(
        ("z_dim", "w_dim", "mapping_width", "channels", "channel_max"), Range(1, 2**14)
    ),
    "c_dim": Range(0, 2**14),
    "channel_base": Range(1, 2**20),
    "input_nc": Range(1, 1024),
    "input_size": Range(4, 2**14),
    "img_channels": Range(1, 256),
    "resolution": Range(4, 2**14),
    "side": Range(4, 2**10),
    "perceptual_side": Range(4, 2**14),
    "mbstd_group_size": SIZE,
    "conv_clamp": Range(0, 1e9, above=True),
    "pool_size": Range(0, 2**16),
    # losses
    **dict.fromkeys(("weight", "mse_weight", "adversarial_weight", "r1_gamma", "gamma"), FACTOR),
    "p": Range(0, 1e3, above=True),
    "init_std_scale": Range(0, 1e3, above=True),
    "ema_rampup": FACTOR,
    "w_avg_beta": SHARE,
    # edits and their metrics
    **dict.fromkeys(("strength", "strengths", "strongest", "amount"), Range(-1e6, 1e6)),
    "cells": Range(-64, 64),
    "images": Range(1, 2**16),
    # per-image methods
    "steps": IMAGES,
    "samples": Range(2, 10**9),
    **dict.fromkeys(("locality_samples", "global_batch"), SIZE),
    "levels": Range(1, 16),
    "growth": Range(0, 1e3, above=True),
    "local_probability": SHARE,
    "locality_alpha": Range(0, 1e6, above=True),
    **dict.fromkeys(("ramp_up", "ramp_down", "w_noise_ramp", "floor"), Range(0, 1, above=True)),
    **dict.fromkeys(
        (
            "perceptual_weight",
            "domain_weight",
            "base_weight",
            "p_norm_weight",
            "locality_weight",
            "mse_around_weight",
            "noise_reg",
            "w_noise",
            "threshold",
            "epsilon",
            "global_weight",
        ),
        FACTOR,
    ),
    # optimizers
    "lr": RATE,
    "clip_norm": Range(0, 1e9, above=True),
    "eps": Range(0, 1, above=True),
    "betas": Range(0, 0.9999999),
    "alpha": Range(0, 1, above=True),
    "k": Range(1, 10**6),
    "n_sma_threshold": FACTOR,
    "weight_decay": FACTOR,
}

LENGTHS = {
    "image_size": 2,
    "shift": 2,
    "input_size": 2,
    "betas": 2,
    "region": 4,
    "regions": 4,
}  # of lists
