"""ganinv's own generator file: one `.safetensors` that says what it is.

Metadata (JSON): `format` "ganinv-generator", `kind` (a class named in KINDS), `architecture` (the
constructor's arguments), `recipe` (how it was trained). Tensors: `G.<key>` of the generator and,
where the discriminator travels along, `D.<key>` with `discriminator` (its constructor's arguments)
and `discriminator_kind` (its class). float16 on disk but for a few buffers (float32 where the file
was imported), float32 in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ganinv.core.errors import WeightsError, explain, shown
from ganinv.core.network import filled
from ganinv.core.safe.io import read_safetensors, sha256_file, write_safetensors
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator

AnyGenerator = StyleGANGenerator | StyleGAN2Generator | StyleGAN3Generator
KINDS: dict[str, type[AnyGenerator]] = {
    "StyleGANGenerator": StyleGANGenerator,
    "StyleGAN2Generator": StyleGAN2Generator,
    "StyleGAN3Generator": StyleGAN3Generator,
}
DISCRIMINATORS = ("StyleGAN2Discriminator", "StyleGANDiscriminator")  # of ganinv.discriminator
EXACT = (".freqs", ".phases", "_filter")  # buffers that stay float32: an error there is everywhere


def save_bundle(
    path: str | Path,
    generator: AnyGenerator,
    recipe: dict[str, Any],
    discriminator: nn.Module | None = None,
    *,
    half: bool = True,
) -> None:
    """Write a generator (and its discriminator), atomically; as float16, or as it is."""
    networks: dict[str, nn.Module] = {"G": generator}
    metadata: dict[str, Any] = {
        "format": "ganinv-generator",
        "kind": type(generator).__name__,
        "architecture": generator.architecture,
        "recipe": recipe,
    }
    if discriminator is not None:
        networks["D"] = discriminator
        metadata["discriminator"] = discriminator.architecture
        metadata["discriminator_kind"] = type(discriminator).__name__
    tensors = {
        f"{letter}.{key}": value.half()
        if half and value.is_floating_point() and not key.endswith(EXACT)
        else value
        for letter, network in networks.items()
        for key, value in network.state_dict().items()
    }
    write_safetensors(path, tensors, metadata)


def part_of(tensors: dict[str, Tensor], letter: str) -> dict[str, Tensor]:
    """The tensors of one network, in float32, under their own keys."""
    prefix = letter + "."
    return {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}


def load_bundle(path: str | Path) -> AnyGenerator:
    """Build the generator that a bundle describes and fill it.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a ganinv generator, or tensors that do not fit its own description.
    """
    tensors, metadata = read_safetensors(path, "G.")
    kind, form = metadata.get("kind"), metadata.get("format")
    if form != "ganinv-generator" or type(kind) is not str or kind not in KINDS:
        raise WeightsError(
            explain(
                f"{path} holds format={shown(form)} kind={shown(kind)}",
                f"format='ganinv-generator' and a kind of {sorted(KINDS)}",
                "import the original file with `ganinv import`",
            )
        )
    architecture: Any = metadata.get("architecture")
    generator: AnyGenerator = filled(KINDS[kind], architecture, part_of(tensors, "G"), str(path))
    generator.source, generator.sha256 = str(path), sha256_file(path)
    return generator


def load_discriminator_state(path: str | Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Class name, constructor arguments and weights of the discriminator inside a bundle.

    Raises:
        WeightsError: the bundle holds no discriminator.
    """
    tensors, metadata = read_safetensors(path, "D.")
    if "discriminator" not in metadata:
        raise WeightsError(f"{path} holds no discriminator; use a bundle that was saved with one")
    kind, settings = metadata.get("discriminator_kind", "StyleGAN2Discriminator"), metadata
    if type(kind) is not str or kind not in DISCRIMINATORS:
        raise WeightsError(
            explain(f"{path} with discriminator_kind={shown(kind)}",
                    f"one of {', '.join(DISCRIMINATORS)}", "write the file again")
        )  # fmt: skip
    if not isinstance(settings["discriminator"], dict):
        raise WeightsError(f"{path} without the settings of its discriminator; write it again")
    return kind, settings["discriminator"], part_of(tensors, "D")
