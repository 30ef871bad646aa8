"""`generator.weights=FILE`: what kind of file it is, read from its content, and the networks in
it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ganinv.core.errors import WeightsError, explain, shown
from ganinv.core.network import filled, refused_as_malformed
from ganinv.core.safe.io import load_tensors, read_metadata, sha256_file
from ganinv.generator.importer import genforce, nvidia, nvidia_state, rosinality
from ganinv.generator.importer.bundle import AnyGenerator, load_bundle, load_discriminator_state
from ganinv.generator.importer.find import find
from ganinv.generator.kind import check_kind


def load_generator(
    *, weights: str, resolution: int | None, kind: str | None, origin: str | None
) -> AnyGenerator:
    """A pretrained generator, frozen, in eval mode, with `source` and `sha256`.

    Args:
        weights: path, or name of a shipped file. ganinv's `.safetensors`, rosinality's `.pt` (also
            inside a pSp or e4e checkpoint), genforce's `.pth` and NVIDIA's `.pkl` are told apart by
            their content.
        resolution: side in px that the config counts on, None to take what the file has.
        kind: family that the config counts on (`generator/kind.py`), None likewise.
        origin: where the file is published, for the message when it is missing.

    Raises:
        WeightsMissing: no such file.
        WeightsError: unreadable, of an unknown layout, of another resolution or kind.
    """
    path = find(weights, origin)
    with refused_as_malformed(path, "generator"):
        if path.suffix == ".safetensors":
            generator = load_bundle(path)
        elif nvidia.is_pickle(path):
            generator = nvidia.import_generator(nvidia.read(path))
        else:
            generator = _from_torch(path)
        if not generator.num_ws or any(not v.isfinite().all() for v in (generator.w_avg,)):
            raise WeightsError(f"{path} has a w_avg that is not finite; expected a trained network")
    if resolution is not None and generator.resolution != resolution:
        raise WeightsError(
            explain(
                f"{path} holds a generator of {generator.resolution} px",
                f"one of {resolution} px (generator.resolution)",
                "pass another file, or set generator.resolution=null to take the file's",
            )
        )
    check_kind(generator, kind, path)
    generator.source, generator.sha256 = str(weights), sha256_file(path)
    return generator.eval().requires_grad_(False)


def read_torch_file(path: Path) -> Any:
    """A file of torch.save, which may hold networks of NVIDIA's classes (PTI's tuned generators).

    Raises:
        WeightsMissing, WeightsError: as `load_tensors`.
    """
    return load_tensors(path, nvidia.NAMES)


def _read(path: Path) -> dict[str, Any]:
    content = read_torch_file(path)
    if nvidia.has_modules(content):
        return nvidia.as_dictionary(content) or {}
    if not isinstance(content, dict):
        told = (
            "a tensor of shape " + str(list(content.shape)) if isinstance(content, Tensor) else ""
        )
        raise WeightsError(
            explain(f"{path} holds {told or shown(content)}", "a network's tensors by name",
                    "a direction in a latent space is no generator: ganinv import FILE reads it")
        )  # fmt: skip
    models = content.get("models")  # genforce's training checkpoints
    return models if isinstance(models, dict) else content


def _from_torch(path: Path) -> AnyGenerator:
    content = _read(path)
    if nvidia.has_modules(content):
        return nvidia.import_generator(content)
    average = content.get("latent_avg")
    average = average if isinstance(average, Tensor) else None
    if nvidia_state.is_state(content):
        return nvidia_state.import_state(content)
    if "g_ema" in content:
        return rosinality.import_state(content["g_ema"], average)
    state = content.get("state_dict", content)
    for name in ("generator_smooth", "generator"):  # genforce: the average, else the last weights
        state = state.get(name, state) if isinstance(state, dict) else state
    state = state if isinstance(state, dict) else {}
    names = [key for key in state if type(key) is str]
    check_no_hypernetwork(names, path)
    decoder = {k.removeprefix("decoder."): state[k] for k in names if k.startswith("decoder.")}
    if decoder:
        return rosinality.import_state(decoder, average)
    if "input.input" in state:
        return rosinality.import_state(state, average)
    if genforce.layout_of(state) is not None:
        return genforce.import_state(state)
    if "synthesis.b4.const" in state:
        raise WeightsError(
            explain(f"{path}, a bare state dict of NVIDIA's generator",
                    "its settings beside it: tensors alone do not say where activations are "
                    "clamped or how StyleGAN3 filters",
                    "save it with them: pickle.dump({'G_ema': G}, file) or torch.save(G, FILE)")
        )  # fmt: skip
    raise WeightsError(
        explain(
            f"{path} with the entries {_entries(content)}",
            "'g_ema' (rosinality), 'state_dict' with 'decoder.*' (pSp, e4e), a StyleGAN (v1) of "
            "genforce or NVIDIA's .pkl",
            "pass a file in one of these layouts, or ganinv's own .safetensors",
        )
    )


def _entries(content: Mapping[Any, Any]) -> str:
    """The first names of a dictionary."""
    return f"[{', '.join(sorted(shown(key) for key in content)[:5])}]"


def check_no_hypernetwork(names: Iterable[str], source: object) -> None:
    """Refuse HyperStyle's file, whose generator alone is not what the file is.

    Raises:
        WeightsError: it has a hypernetwork.
    """
    if any(name.startswith("hypernet.") for name in names):
        raise WeightsError(
            explain(
                f"{source} with a hypernetwork (HyperStyle), which changes the generator's weights "
                "for each image",
                "an encoder or a generator",
                "pass the W encoder or the generator that HyperStyle started from",
            )
        )


@dataclass(frozen=True)
class DiscriminatorWeights:
    """What builds and fills a discriminator, without naming its class's room."""

    kind: str  # a class of ganinv.discriminator
    architecture: dict[str, Any]  # its constructor's arguments
    state: dict[str, Tensor]

    def build(self, kind: type[nn.Module]) -> nn.Module:
        """The discriminator, of the class that is named `kind`.

        Raises:
            WeightsError: another class, or tensors that do not fit.
        """
        if kind.__name__ != self.kind:
            raise WeightsError(
                explain(
                    f"the weights of a {self.kind} for a {kind.__name__}",
                    "a discriminator of the same class",
                    f"use ganinv.discriminator's {self.kind}, or another file",
                )
            )
        return filled(kind, self.architecture, self.state, f"the {self.kind} of the file")


def load_discriminator(*, weights: str, origin: str | None) -> DiscriminatorWeights:
    """The discriminator that was trained with a generator, from the same file.

    Args:
        weights: as in `load_generator`.
        origin: as in `load_generator`.

    Raises:
        WeightsMissing: no such file.
        WeightsError: unreadable, or a file without a discriminator.
    """
    path = find(weights, origin)
    with refused_as_malformed(path, "discriminator"):
        found = _discriminator(path)
    if found is None:
        raise WeightsError(
            explain(
                f"{path}, which holds no discriminator",
                "'D' (NVIDIA, ganinv), 'd' (rosinality) or 'discriminator' (genforce)",
                "pass the file of the GAN's training, which holds both networks",
            )
        )
    return found


def find_discriminator(*, weights: str, origin: str | None) -> DiscriminatorWeights | None:
    """As `load_discriminator`; None where the file has none.

    Raises:
        WeightsMissing, WeightsError: unreadable, the file or its discriminator.
    """
    path = find(weights, origin)
    with refused_as_malformed(path, "discriminator"):
        return _discriminator(path)


def _discriminator(path: Path) -> DiscriminatorWeights | None:
    if path.suffix == ".safetensors":
        there = "discriminator" in read_metadata(path)
        return DiscriminatorWeights(*load_discriminator_state(path)) if there else None
    pickled = nvidia.is_pickle(path)
    content = nvidia.read(path) if pickled else _read(path)
    if pickled or nvidia.has_modules(content):
        if content.get("D") is None:
            return None
        return DiscriminatorWeights("StyleGAN2Discriminator", *nvidia.import_discriminator(content))
    if content.get("d") is not None:
        return DiscriminatorWeights(
            "StyleGAN2Discriminator", *rosinality.import_discriminator(content["d"])
        )
    if content.get("discriminator") is not None:
        return DiscriminatorWeights(
            "StyleGANDiscriminator", *genforce.import_discriminator(content["discriminator"])
        )
    return None
