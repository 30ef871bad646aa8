"""`ganinv import`: a file of another code base to ganinv's form; its content says what it is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing, explain
from ganinv.run.disk import check_writable

if TYPE_CHECKING:
    from ganinv.generator.importer.bundle import AnyGenerator
    from ganinv.inversion.model import Model

EXAMPLES = """examples:
  ganinv import ffhq.pkl --out weights                     NVIDIA's StyleGAN2-ADA, StyleGAN3
  ganinv import stylegan2-ffhq-config-f.pt --out weights   rosinality; genforce's .pth alike
  ganinv import e4e_ffhq_encode.pt --out weights           pSp, e4e, ReStyle: encoder and generator
  ganinv import model_ir_se50.pth --out weights            ArcFace; MoCo's training file alike
  ganinv import age_boundary.npy --out weights             InterFaceGAN's and IDInvert's directions

Nothing in a file is ever executed, and nothing is overwritten. Importing is never needed for
generator.weights=FILE, which reads all generators directly.
"""
NPY = b"\x93NUMPY"
Written = list[tuple[Path, str]]


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "import",
        help="bring generators, encoders, feature networks and boundaries into ganinv's form",
        description="Read a file of another code base, whose kind is told from its content, and "
        "write it in ganinv's form into a folder.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--generator", type=Path, metavar="FILE", help="of an encoder of IDInvert, which comes in "
        "a file of its own",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import."""
    if not args.file.is_file():
        raise WeightsMissing(explain(f"no file {args.file}", "one to import", "check the path"))
    check_writable(args.out, "--out", "choose another --out")
    from ganinv.core.network import refused_as_malformed

    with open(args.file, "rb") as file:
        head = file.read(6)
    with refused_as_malformed(args.file, "network"):
        written = _written(args, head)
    for path, words in written:
        print(f"{path}  {words}")
    return 0


def _written(args: argparse.Namespace, head: bytes) -> Written:
    if head == NPY:
        return _boundary(args.file, args.out)
    if args.file.suffix == ".safetensors":
        raise ConfigError(
            explain(f"{args.file}, a safetensors file", "a file of another code base",
                    "ganinv's own files need no import: pass it as it is")
        )  # fmt: skip
    return _network(args.file, args.out, args.generator)


def _free(path: Path) -> Path:
    if path.exists():
        raise ConfigError(
            explain(f"{path}, which exists", "a name that is free",
                    "choose another --out; nothing was overwritten")
        )  # fmt: skip
    return path


def _boundary(file: Path, out: Path) -> Written:
    from ganinv.core.safe.io import write_safetensors
    from ganinv.editing.boundary import read_boundary

    found = read_boundary(file)
    path = _free(out / f"{file.stem}.safetensors")
    metadata = {"format": "ganinv-boundary", "layers": found.layers, "source": file.name}
    write_safetensors(path, {"boundary": found.direction}, metadata)
    shape = "x".join(map(str, found.direction.shape))
    layers = "all layers" if found.layers is None else f"layers {found.layers}"
    return [(path, f"a boundary, {shape}, {layers}")]


def _network(file: Path, out: Path, generator: Path | None) -> Written:
    from ganinv.backbone.moco import is_training_checkpoint
    from ganinv.core.safe.io import sha256_file
    from ganinv.editing import boundary as editing
    from ganinv.generator.importer.load import load_generator, read_torch_file
    from ganinv.generator.importer.nvidia import is_pickle
    from ganinv.interop import feature, imported

    if is_pickle(file):
        return _generator(file, out)
    content = read_torch_file(file)
    if editing.is_direction(content):
        return _boundary(file, out)
    if isinstance(content, dict) and "ganinv" in content:
        raise ConfigError(
            explain(f"{file}, a checkpoint of ganinv", "a file of another code base",
                    f"to use it elsewhere: ganinv export {file} --to e4e --out FILE")
        )  # fmt: skip
    if feature.is_arcface(content):
        return _tensors(out / "model_ir_se50.pth", feature.arcface(content), "ArcFace")
    if is_training_checkpoint(content):
        return _tensors(out / "moco_v2_resnet50.pth", feature.moco(content), "MoCo's ResNet-50")
    if feature.is_base_code(content):
        return _base_code(file, out, content)
    if imported.is_official(content):
        model = imported.read(content)
        model.G.source, model.G.sha256 = str(file), sha256_file(file)
        return _model(model, file, out, imported.dataset_type(content))
    if imported.is_idinvert(content):
        if generator is None:
            raise ConfigError(
                explain(f"{file}, an encoder of IDInvert", "its generator beside it",
                        "add --generator FILE, the *_generator.pth of the same name")
            )  # fmt: skip
        frozen = load_generator(weights=str(generator), resolution=None, kind=None, origin=None)
        return _model(imported.idinvert(content, frozen), file, out)
    return _generator(file, out)


def _tensors(path: Path, state: dict[str, Any], words: str) -> Written:
    import io

    import torch

    from ganinv.core.safe.io import write_atomic

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(_free(path), buffer.getvalue())
    return [(path, f"{words}; found when GANINV_WEIGHTS={path.parent}")]


def _base_code(file: Path, out: Path, content: dict[str, Any]) -> Written:
    from ganinv.core.safe.io import write_safetensors
    from ganinv.interop import feature

    architecture, state = feature.base_code(content)
    path = _free(out / f"{file.stem}.safetensors")
    metadata = {"format": "ganinv-encoder", "kind": "BaseCodeEncoder", "architecture": architecture}
    write_safetensors(path, state, metadata)
    return [(path, f"BDInvert's base-code encoder, {json.dumps(architecture)}")]


def _model(model: Model, file: Path, out: Path, dataset_type: str | None = None) -> Written:
    """The generator in a file of its own, and a bundle of the encoder that names it."""
    from ganinv.core.safe.io import sha256_file
    from ganinv.generator.importer.bundle import save_bundle
    from ganinv.interop import bundle

    path = _free(out / f"{file.stem}.safetensors")
    beside = _free(out / f"{file.stem}-generator.safetensors")
    generator = model.G
    save_bundle(beside, generator, _recipe(generator), half=False)
    generator.source, generator.sha256 = beside.name, sha256_file(beside)
    bundle.write(path, model, dataset_type=dataset_type)
    height, width = model.input_size
    words = f"{model.kind} for {height} x {width} px, num_ws {model.num_ws}"
    return [(beside, _words(generator)), (path, f"{words}; ganinv.load opens it")]


def _recipe(generator: AnyGenerator) -> dict[str, Any]:
    return {"imported_from": Path(str(generator.source)).name, "sha256": generator.sha256}


def _words(generator: AnyGenerator) -> str:
    kind, size = type(generator).__name__, generator.resolution
    labels = f", {generator.c_dim} classes" if getattr(generator, "c_dim", 0) else ""
    return f"{kind} of {size} px, num_ws {generator.num_ws}, w_dim {generator.w_dim}{labels}"


def _generator(file: Path, out: Path) -> Written:
    """The generator, with the discriminator where the file has one."""
    from ganinv.discriminator.stylegan import StyleGANDiscriminator
    from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
    from ganinv.generator.importer.bundle import save_bundle
    from ganinv.generator.importer.load import find_discriminator, load_generator

    generator = load_generator(weights=str(file), resolution=None, kind=None, origin=None)
    path = _free(out / f"{file.stem}.safetensors")
    kinds = {kind.__name__: kind for kind in (StyleGAN2Discriminator, StyleGANDiscriminator)}
    critic, with_critic = None, ""
    try:
        if (weights := find_discriminator(weights=str(file), origin=None)) is not None:
            critic, with_critic = weights.build(kinds[weights.kind]), ", with its discriminator"
    except WeightsError as error:
        with_critic = f", WITHOUT its discriminator, which cannot be read: {error}"
    save_bundle(path, generator, _recipe(generator), critic, half=False)
    return [(path, _words(generator) + with_critic)]
