"""The families of generators that configs name, at the widths of their published models."""

from __future__ import annotations

from typing import Any

from ganinv.core.errors import ConfigError, WeightsError, explain
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator

WIDTHS: dict[str, Any] = {"z_dim": 512, "w_dim": 512, "img_channels": 3, "channel_max": 512}
STYLEGAN = WIDTHS | {"mapping_layers": 8, "channel_base": 16384}
STYLEGAN3 = WIDTHS | {
    "c_dim": 0,
    "mapping_layers": 2,
    "num_layers": 14,
    "num_critical": 2,
    "margin_size": 10,
    "conv_clamp": 256.0,
}
ARCHITECTURES: dict[str, tuple[type[AnyGenerator], dict[str, Any]]] = {
    "stylegan": (StyleGANGenerator, STYLEGAN | {"layerwise": False, "final_tanh": False}),
    "stylegan_layerwise": (StyleGANGenerator, STYLEGAN | {"layerwise": True, "final_tanh": True}),
    "stylegan2": (
        StyleGAN2Generator,
        WIDTHS | {"c_dim": 0, "mapping_layers": 8, "channel_base": 32768, "conv_clamp": None},
    ),
    "stylegan3_t": (
        StyleGAN3Generator,
        STYLEGAN3 | {"channel_base": 32768, "conv_kernel": 3, "use_radial_filters": False},
    ),
    "stylegan3_r": (
        StyleGAN3Generator,
        STYLEGAN3
        | {"channel_base": 65536, "channel_max": 1024}
        | {"conv_kernel": 1, "use_radial_filters": True},
    ),
}
TELLING = ("layerwise", "conv_kernel")  # settings that tell two kinds of one class apart


def kind_of(generator: AnyGenerator) -> str:
    """The kind that a generator is of, whatever its widths."""
    own = generator.architecture
    return next(
        kind
        for kind, (constructor, settings) in ARCHITECTURES.items()
        if type(generator) is constructor
        and all(own[key] == settings[key] for key in TELLING if key in settings)
    )


def check_kind(generator: AnyGenerator, kind: str | None, source: object) -> None:
    """Refuse a file of another kind than the config counts on.

    Raises:
        WeightsError: naming both.
    """
    if kind is not None and (found := kind_of(generator)) != kind:
        raise WeightsError(
            explain(
                f"{source} holds a generator of kind {found}",
                f"one of kind {kind} (generator.kind)",
                "pass another file, or set generator.kind=null to take the file's",
            )
        )


def random_generator(kind: str | None, resolution: int | None) -> AnyGenerator:
    """A generator of a kind at its published widths with random weights, for dry runs and tests.

    Raises:
        ConfigError: no kind or no resolution.
    """
    if kind not in ARCHITECTURES or resolution is None:
        raise ConfigError(
            explain(
                f"generator.kind={kind} and generator.resolution={resolution}",
                f"a kind ({', '.join(ARCHITECTURES)}) and a resolution in px",
                "set both, or give the generator's file",
            )
        )
    constructor, settings = ARCHITECTURES[kind]
    return constructor(resolution=resolution, **settings).eval().requires_grad_(False)
