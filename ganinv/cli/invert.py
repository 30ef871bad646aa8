"""`ganinv invert`: a folder of images to codes and reconstructions.

OUT/images/<name>.png   what the codes give, at the generator's size; with --outputs N also
                        <name>-mix1.png and so on: the same code with the fine layers drawn anew
OUT/latents.pt          float32 [N,L,D], absolute codes, as StyleCLIP and e4e's tools read them
OUT/latents.npy         the same for NumPy, without pickle
OUT/invert.json         the name of each row, the images that could not be read, and the settings
OUT/inversions/<name>.safetensors   with --method: all that was found for an image, codes, f, noise
                        maps and changes of the weights (`ganinv/inversion/file.py`)
OUT/loss.csv            with a method that optimises: a row an image, a column a step (100 at most),
                        the loss; from its end on, what an image had then

Images are taken in batches of consecutive names (`evaluation/work.py`): the same command goes on
where it was stopped, and which process computes a batch changes nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.cli._align_options import add_align, aligned, detector_with_align
from ganinv.cli._inputs import TASKS, compared, layers_of, open_masks, task_of
from ganinv.cli._methods import ENCODE, check_methods, config_of
from ganinv.cli._pasting import box_of, open_pasting
from ganinv.core.command import printable
from ganinv.core.errors import ConfigError, DataError, explain
from ganinv.run.storage.base import path_or_address

if TYPE_CHECKING:
    from ganinv.dataset.source import Source
    from ganinv.evaluation.work import Work

EXAMPLES = """examples:
  ganinv invert runs/NAME/checkpoints/best.ckpt photos --out inverted
  ganinv invert e4e_ffhq_encode.pt aligned --out inverted --batch-size 16 --processes 2
  ganinv invert e4e_ffhq_encode.pt holiday.zip --align --out inverted
  ganinv invert runs/NAME/checkpoints/best.ckpt masks --out faces --outputs 5 --mix-layers 8-17
  ganinv invert e4e_ffhq_encode.pt aligned --out tuned --method pti --size 1024 --set steps=200
  ganinv invert e4e_ffhq_encode.pt aligned --out tuned --method pti --start projector
  ganinv invert idinvert.ckpt faces --paste scenes --method domain_regularised --out diffused

Images are turned upright, cropped to the encoder's aspect and resized, as ganinv shard does. Faces
must be aligned as the encoder's training images were: --align crops photos as FFHQ's were.
"""
LISTED = 10  # failures printed; invert.json has all
RESULT = "invert.json"
PATIENCE = 60.0  # seconds until the parts of another machine may be seen


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "invert",
        help="codes and reconstructions of a folder of images",
        description="Invert every image of a folder, a zip file or an LMDB.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint",
        type=path_or_address,
        help="a .ckpt, a bundle, or pSp's, e4e's, ReStyle's; a path or an address (s3://...)",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="default 8")
    parser.add_argument(
        "--fit", choices=("crop", "pad"), default="crop",
        help="crop: centre crop to the encoder's aspect (default); pad: whole image, on black",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="default 1, or as many as torchrun or srun "
        "started; with several GPUs, each process has the next one",
    )  # fmt: skip
    parser.add_argument("--task", choices=TASKS, help="what the images are, where nothing says so")
    parser.add_argument(
        "--outputs", type=int, default=1, metavar="N", help="images for each input: the first from "
        "its own code, the others with layers drawn anew (style mixing)",
    )  # fmt: skip
    parser.add_argument("--mix-layers", metavar="A-B", help="which are drawn; default 8 of 18 on")
    parser.add_argument("--mix-alpha", type=float, default=1.0, help="how far, default 1: entirely")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn, default 0")
    parser.add_argument("--generator", type=Path, metavar="FILE", help="where it has moved")
    add_methods(parser)
    add_align(parser)
    parser.set_defaults(run=run)


def add_methods(parser: argparse.ArgumentParser) -> None:
    """The options of per-image methods."""
    group = parser.add_argument_group("per-image methods, which go on for each image alone")
    group.add_argument("--method", default=ENCODE, metavar="NAME", help="of conf/inversion: "
                       "image2stylegan, projector, domain_regularised, noise_maps, bdinvert, pti, "
                       "clone; default encode, the encoder alone")  # fmt: skip
    group.add_argument("--start", metavar="NAME", help="the method whose result it starts from, "
                       "w_avg or random; default what its yaml says")  # fmt: skip
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                       help="a key of conf/inversion/NAME.yaml, or in full: inversion.NAME.KEY=, "
                       "loss=lpips_vgg; may be repeated")  # fmt: skip
    group.add_argument("--size", type=int, metavar="PX", help="of the images that are compared; "
                       "default what the encoder reads; at most the generator's")  # fmt: skip
    group.add_argument("--masks", type=Path, metavar="DIR", help="images of the same names, white "
                       "where an image counts (in-painting)")  # fmt: skip
    group.add_argument("--paste", type=Path, metavar="DIR", help="contexts, images of the same "
                       "names or one for all: what is in --box of an image, in its context "
                       "(semantic diffusion, IDInvert)")  # fmt: skip
    group.add_argument("--box", metavar="T,B,L,R", help="of --paste: top, bottom, left, right as "
                       "parts of the side; default that of aligned faces")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Invert."""
    _check(args)
    detector = detector_with_align(args)
    from ganinv.cli._inverting import Inverter, Inverting
    from ganinv.evaluation.open import open_model
    from ganinv.evaluation.ranks import carry_out, ranks_of
    from ganinv.evaluation.work import Work
    from ganinv.run.launch import agree

    ranks = ranks_of(args.processes)
    source, left_out = _images(args.folder)
    methods = config_of(args.method, args.start, args.settings) if args.method != ENCODE else None
    opened = open_model(args.checkpoint, args.generator)
    model = opened.model
    task = task_of(model, args.task)
    if methods is not None:
        check_methods(args.method, model, task, args.size)
    source = aligned(source, detector, model.input_size, task.reads)
    masks = open_masks(args.masks, source, compared(model, args.size), args.fit)
    items = source.items()
    job = Inverting(
        checkpoint=args.checkpoint,
        generator=args.generator,
        source=source,
        names=[name for name, _ in items],
        batch_size=args.batch_size,
        fit=args.fit,
        device=args.device,
        task=args.task,
        outputs=args.outputs,
        mix_layers=layers_of(args.mix_layers, model.num_ws),
        mix_alpha=args.mix_alpha,
        seed=args.seed,
        method=args.method,
        methods=methods,
        size=args.size,
        masks=masks,
        pasting=open_pasting(args.paste, args.box, source, detector, model, args.size),
    )
    inverter = Inverter(job, model, ranks)
    sizes = [len(batch) for batch in job.batches]
    work = Work(args.out, settings=job.settings(items, model), sizes=sizes)

    def decide() -> dict[str, Any]:
        return {"todo": None if _done(work) else work.begin()}

    todo = (agree(decide) if ranks.external else decide())["todo"]
    if todo is not None:
        if ranks.rank == 0:
            _begin_to_tell(f"{args.checkpoint}: {opened.words}", len(todo), len(sizes))
        carry_out(work, todo, job, ranks, inverter)
    if ranks.rank > 0:
        return 0
    if todo is None:
        print(f"{args.out}: already done by the same command")
    else:
        _join(work, left_out)
    from ganinv.core.network import refused_as_malformed

    with refused_as_malformed(args.out / RESULT, "results"):
        return _tell(args.out)


def _begin_to_tell(opened: str, todo: int, batches: int) -> None:
    """Say what was opened, and that earlier work is gone on with, if there is some; from now on
    also what the loops of per-image methods log where there is no terminal."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ganinv.inversion.pace").setLevel(logging.INFO)
    print(opened)
    if todo < batches:
        print(f"going on after {batches - todo} of {batches} batches")


def _images(folder: Path) -> tuple[Source, list[str]]:
    """The images of a folder, zip or LMDB, and the names of the files that are none.

    Raises:
        DataError: there are none.
    """
    from ganinv.dataset.source import open_source

    source = open_source(folder)
    left_out = source.left_out()
    if not source.items():
        others = f" ({_counted(left_out)} in it)" if left_out else ""
        raise DataError(
            explain(f"{folder} holds no images{others}", "png, jpg, webp, bmp, tiff or ppm files",
                    "check the path")
        )  # fmt: skip
    return source, left_out


def _check(args: argparse.Namespace) -> None:
    for name in ("batch_size", "processes", "outputs"):
        if (value := getattr(args, name)) is not None and value < 1:
            option = name.replace("_", "-")
            raise ConfigError(explain(f"--{option} {value}", "at least 1", "raise it"))
    given = {"start": args.start, "size": args.size, "masks": args.masks, "set": args.settings,
             "paste": args.paste}  # fmt: skip
    for option, value in given.items():
        if args.method == ENCODE and value not in (None, []):
            raise ConfigError(
                explain(f"--{option} with the encoder alone", "--method NAME, which it is for",
                        f"add --method pti, say, or leave --{option} out")
            )  # fmt: skip
    args.box = box_of(args.box)
    if args.box is not None and args.paste is None:
        raise ConfigError(explain("--box without --paste", "both", "add --paste DIR"))
    if args.masks is not None and args.paste is not None:
        raise ConfigError(
            explain("--masks with --paste, whose box is the mask", "one of them",
                    "leave the other one out")
        )  # fmt: skip
    if not math.isfinite(args.mix_alpha):
        raise ConfigError(explain(f"--mix-alpha {args.mix_alpha}", "a number", "e.g. 0.5"))
    from ganinv.run.disk import check_writable
    from ganinv.run.storage.fetch import check_there

    check_writable(args.out, "--out", "choose another --out, or make it writable")
    check_there(args.checkpoint)
    if not args.out.exists() or (args.out.is_dir() and not any(args.out.iterdir())):
        return
    if not (args.out / ".parts").is_dir() and not (args.out / RESULT).is_file():
        raise ConfigError(
            explain(f"--out {args.out}, which holds other files", "a new or empty folder",
                    "choose another; nothing was overwritten")
        )  # fmt: skip


def _done(work: Work) -> bool:
    """Whether the same command has finished here.

    Raises:
        ConfigError: another one has.
    """
    if work.parts_folder.is_dir() or not (work.folder / RESULT).is_file():
        return False
    work.check_settings(_read(work.folder).get("settings"))
    return True


def _read(out: Path) -> dict[str, Any]:
    """OUT/invert.json; {} for one that is none."""
    try:
        found = json.loads((out / RESULT).read_text())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _join(work: Work, left_out: list[str]) -> None:
    """Join the parts, then forget them."""
    import numpy as np
    import torch

    from ganinv.cli._trace import ends, table
    from ganinv.core.safe.io import write_atomic
    from ganinv.evaluation.work import GO_ON
    from ganinv.run.disk import disk_errors

    codes, names, failed, not_finite, steps = [], [], [], [], []
    losses, traced, told = [], [], None
    for tensors, metadata in work.parts(patience=PATIENCE):
        codes.append(tensors["wp"])
        names += metadata["names"]
        failed += metadata["failed"]
        not_finite += metadata.get("not_finite", [])
        if "loss" in tensors:
            steps += tensors["steps"].tolist()
            losses.append(tensors["loss"])
            traced += metadata["names"]
            told = metadata["trace"]
    wp = torch.cat(codes)
    plain, array = io.BytesIO(), io.BytesIO()
    torch.save(wp, plain)
    np.save(array, wp.numpy(), allow_pickle=False)
    metadata = {
        "settings": work.settings,
        "images": names,
        "failed": failed,
        "left_out": left_out,
        "not_finite": not_finite,
        "steps": steps,
        "loss": None if told is None else ends(torch.cat(losses), told[0]),
        "shape": list(wp.shape),
    }
    with disk_errors(work.folder, GO_ON):
        if told is not None:
            write_atomic(
                work.folder / "loss.csv", table(traced, torch.cat(losses), told[1]).encode()
            )
        write_atomic(work.folder / "latents.pt", plain.getvalue())
        write_atomic(work.folder / "latents.npy", array.getvalue())
        write_atomic(work.folder / RESULT, json.dumps(metadata, indent=1).encode())
        work.end()


def _tell(out: Path) -> int:
    """Say what became of every file; the exit code: 1 where no image could be inverted."""
    content = _read(out)
    names, failed = content["images"], content["failed"]
    shape = "x".join(map(str, content["shape"]))
    print(f"{out}: {len(names)} images, latents.pt and latents.npy [{shape}]")
    if content.get("steps"):
        mean = sum(content["steps"]) / len(content["steps"])
        print(f"inversions/: one file an image, after {mean:.4g} steps on average")
    if loss := content.get("loss"):
        first, last = (f"{loss[end]:.4g}" for end in ("first", "last"))
        print(
            f"loss.csv: {loss['name']} {first} at the first step, {last} at the last, mean of all"
        )
    if lost := content.get("not_finite"):
        shown = ", ".join(printable(name) for name in lost[:LISTED])
        print(f"came to a loss or gradient that is no finite number: {len(lost)} ({shown}); what "
              "was found before is kept")  # fmt: skip
    if content["left_out"]:
        print(f"left out: {_counted(content['left_out'])}, no images by their names")
    if failed:
        print(f"could not be read: {len(failed)} ({RESULT} lists all)")
        for name, reason in failed[:LISTED]:
            print(f"  {printable(name)}: {printable(reason)}")
    if not names:
        raise DataError(
            explain(f"none of {len(failed)} images could be inverted", "images that can be read",
                    f"see above, and {out / RESULT}")
        )  # fmt: skip
    return 0


def _counted(names: list[str]) -> str:
    """`3 files (2 .gif, 1 without suffix)`."""
    often = Counter(Path(name).suffix.lower() or "without suffix" for name in names)
    kinds = ", ".join(f"{number} {printable(kind, 20)}" for kind, number in often.most_common(5))
    more = ", ..." if len(often) > 5 else ""
    return f"{len(names)} file{'s' if len(names) > 1 else ''} ({kinds}{more})"
