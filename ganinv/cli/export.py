"""`ganinv export`: a trained model to a file that other code opens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, explain
from ganinv.run.disk import check_writable
from ganinv.run.storage.base import path_or_address
from ganinv.run.storage.fetch import check_there

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.evaluation.open import Opened

OFFICIAL = ("psp", "e4e", "restyle")
FOLDERS = ("genforce", "onnx", "torch-export")  # several files
TARGETS = (
    *OFFICIAL, "genforce", "nvidia-state", "nvidia-pkl", "rosinality", "safetensors", "onnx",
    "torch-export",
)  # fmt: skip
EXAMPLES = """examples:
  ganinv export runs/NAME/checkpoints/best.ckpt --to safetensors --out e4e.safetensors
  ganinv export runs/NAME/checkpoints/best.ckpt --to e4e --out e4e.pt
  ganinv export e4e_ffhq_encode.pt --to onnx --out e4e_onnx
  ganinv export ffhq.pkl --to nvidia-state --out ffhq.pt
  ganinv export stylegan2-ffhq-config-f.pt --to nvidia-pkl --out stylegan2-ffhq.pkl

CHECKPOINT is a .ckpt of train.py, a bundle, a checkpoint of pSp, e4e or ReStyle, a generator, or a
file of `ganinv invert --method` in OUT/inversions: the generator as it was tuned for one image, and
beside it OUT's name with _w.npz, the image's code "w" [1,L,D], as NVIDIA's generate.py takes it.
genforce, onnx and torch-export write several files into the folder OUT, the others the file OUT.
docs/INTEROP.md says who opens what.
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained model in a form that other code opens",
        description="Write a trained encoder, its generator, or both, for another program.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=path_or_address, metavar="CHECKPOINT")
    parser.add_argument("--to", required=True, choices=TARGETS, metavar="|".join(TARGETS))
    parser.add_argument("--out", type=Path, required=True, help="file or folder, not there yet")
    parser.add_argument(
        "--generator", type=Path, metavar="FILE", help="the generator, where it is no longer"
        " at the path that the checkpoint names",
    )  # fmt: skip
    parser.add_argument(
        "--dataset-type", metavar="NAME", help="psp, e4e, restyle: what their scripts shall take "
        "the images for, e.g. church_encode; default what they were imported as, else by the size",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export."""
    if args.out.exists():
        raise ConfigError(
            explain(f"--out {args.out}, which exists", "a name that is free",
                    "choose another; nothing was overwritten")
        )  # fmt: skip
    check_writable(args.out.parent, "--out's folder", "choose another --out")
    if args.dataset_type is not None and args.to not in OFFICIAL:
        raise ConfigError(
            explain(f"--dataset-type with --to {args.to}", f"--to {', '.join(OFFICIAL)}",
                    "leave it out")
        )  # fmt: skip
    check_there(args.checkpoint)
    from ganinv.evaluation.open import open_model

    opened = open_model(args.checkpoint, args.generator)
    print(f"{args.checkpoint}: {opened.words}")
    written = write(opened, args.to, args.out, args.dataset_type)
    if opened.code is not None and args.to not in FOLDERS:
        written.append(write_code(args.out, opened.code))
    for path in written:
        print(f"{path}  ({path.stat().st_size / 2**20:,.1f} MiB)")
    return 0


def write_code(out: Path, wp: Tensor) -> Path:
    """The code [1,L,D] that belongs to a tuned generator, beside its file."""
    import io

    import numpy as np

    from ganinv.core.safe.io import write_atomic

    path, buffer = out.with_name(f"{out.stem}_w.npz"), io.BytesIO()
    np.savez(buffer, w=wp.numpy())
    write_atomic(path, buffer.getvalue())
    return path


def write(opened: Opened, to: str, out: Path, dataset_type: str | None) -> list[Path]:
    """Write a model in the form `to`; returns the files.

    Raises:
        ConfigError: a model that the target cannot represent.
    """
    from ganinv.generator.importer.bundle import save_bundle
    from ganinv.interop import bundle, graph, nvidia_pickle, official, plain
    from ganinv.inversion.model import Model

    model, generator = opened.network, opened.generator
    if to == "genforce":
        return plain.write_genforce(out, model)
    if to == "nvidia-state":
        plain.write_nvidia(out, generator)
        return [out]
    if to == "rosinality":
        plain.write_rosinality(out, generator)
        return [out]
    if to == "nvidia-pkl":
        nvidia_pickle.write(out, generator)
        return [out]
    if to == "onnx":
        return graph.write_onnx(out, model)
    if to == "torch-export":
        return graph.write_programs(out, model)
    if to == "safetensors" and not isinstance(model, Model):
        save_bundle(out, generator, {"from": generator.source}, half=False)
        return [out]
    if not isinstance(model, Model):
        raise ConfigError(
            explain(f"--to {to}, and a generator without an encoder", "an encoder with it",
                    "pass the checkpoint of an encoder; for the generator alone use --to "
                    "safetensors, nvidia-state, nvidia-pkl, genforce, onnx or torch-export")
        )  # fmt: skip
    if to == "safetensors":
        if out.suffix != ".safetensors":
            raise ConfigError(f"--out {out}; expected a name that ends in .safetensors")
        bundle.write(out, model, opened.config, opened.dataset_type)
    else:
        official.write(out, model, to, dataset_type, opened.dataset_type)
    return [out]
