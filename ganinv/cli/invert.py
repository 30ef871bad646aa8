"""`ganinv invert`: a folder of images to codes and reconstructions.

OUT/images/<name>.png   what the codes give, at the generator's size; with --outputs N also
                        <name>-mix1.png and so on: the same code with the fine rows drawn anew
OUT/latents.pt          float32 [N,L,D], absolute codes, as StyleCLIP and e4e's tools read them
OUT/latents.npy         the same for NumPy, without pickle
OUT/invert.json         the name of each row, the images that could not be read, and the settings

Images are taken in batches of consecutive names. A finished batch is a file in OUT/.parts, so that
the same command goes on where it was stopped; which process computes a batch changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.cli._align_options import add_align, align_settings, aligned, detector_with_align
from ganinv.cli._inputs import TASKS, read, rows_of, targets, task_of
from ganinv.core.errors import ConfigError, DataError, explain

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.dataset.source import Source
    from ganinv.inversion.model import Model

EXAMPLES = """examples:
  ganinv invert runs/NAME/checkpoints/best.ckpt photos --out inverted
  ganinv invert e4e_ffhq_encode.pt aligned --out inverted --batch-size 16 --processes 2
  ganinv invert e4e_ffhq_encode.pt holiday.zip --align --out inverted
  ganinv invert runs/NAME/checkpoints/best.ckpt masks --out faces --outputs 5 --mix-layers 8-17

Images are turned upright, cropped to the encoder's aspect and resized, as ganinv shard does. Faces
must be aligned as the encoder's training images were: --align crops photos as FFHQ's were.
"""
LISTED = 10  # failures printed; invert.json has all


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
        "checkpoint", type=Path, help="a .ckpt, a bundle, or pSp's, e4e's, ReStyle's"
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
        "--processes", type=int, default=1, metavar="N", help="default 1; with several GPUs, each "
        "process has the next one",
    )  # fmt: skip
    parser.add_argument("--task", choices=TASKS, help="what the images are, where nothing says so")
    parser.add_argument(
        "--outputs", type=int, default=1, metavar="N", help="images for each input: the first from "
        "its own code, the others with rows drawn anew (style mixing)",
    )  # fmt: skip
    parser.add_argument("--mix-layers", metavar="A-B", help="which are drawn; default 8 of 18 on")
    parser.add_argument("--mix-alpha", type=float, default=1.0, help="how far, default 1: entirely")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn, default 0")
    parser.add_argument("--generator", type=Path, metavar="FILE", help="where it has moved")
    add_align(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Job:
    """All that a process needs to know; it travels."""

    checkpoint: Path
    generator: Path | None
    source: Source
    out: Path
    names: list[str]
    batch_size: int
    fit: str
    device: str
    processes: int
    task: str | None
    outputs: int
    mix_layers: list[int]
    mix_alpha: float
    seed: int

    @property
    def parts(self) -> Path:
        """Folder of the finished batches."""
        return self.out / ".parts"

    def part(self, number: int) -> Path:
        """The file of a finished batch."""
        return self.parts / f"{number:08d}.safetensors"

    def batch(self, number: int) -> list[str]:
        """The names of a batch."""
        return self.names[number * self.batch_size : (number + 1) * self.batch_size]

    @property
    def batches(self) -> int:
        """Batches in all, the last one as large as what is left."""
        return -(-len(self.names) // self.batch_size)


def run(args: argparse.Namespace) -> int:
    """Invert."""
    _check(args)
    detector = detector_with_align(args)
    from ganinv.dataset.source import open_source
    from ganinv.evaluation.open import open_model

    source = open_source(args.folder)
    if not source.items():
        raise DataError(
            explain(f"{args.folder} holds no images", "png, jpg, webp, bmp, tiff or ppm files",
                    "check the path")
        )  # fmt: skip
    opened = open_model(args.checkpoint, args.generator)
    model = opened.model
    source = aligned(source, detector, model.input_size, task_of(model, args.task).reads)
    items = source.items()
    job = Job(
        checkpoint=args.checkpoint,
        generator=args.generator,
        source=source,
        out=args.out,
        names=[name for name, _ in items],
        batch_size=args.batch_size,
        fit=args.fit,
        device=_device(args.device),
        processes=args.processes,
        task=args.task,
        outputs=args.outputs,
        mix_layers=rows_of(args.mix_layers, model.num_ws),
        mix_alpha=args.mix_alpha,
        seed=args.seed,
    )
    settings = _settings(job, items, model)
    if _done(job, settings):
        print(f"{job.out}: already done by the same command")
        return 0
    print(f"{args.checkpoint}: {opened.words}")
    todo = [n for n in range(job.batches) if not job.part(n).is_file()]
    if len(todo) < job.batches:
        print(f"going on after {job.batches - len(todo)} of {job.batches} batches")
    _work(job, todo, model)
    _finish(job, settings)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("batch_size", "processes", "outputs"):
        if (value := getattr(args, name)) < 1:
            option = name.replace("_", "-")
            raise ConfigError(explain(f"--{option} {value}", "at least 1", "raise it"))
    if not args.out.exists() or (args.out.is_dir() and not any(args.out.iterdir())):
        return
    if not (args.out / ".parts").is_dir() and not (args.out / "invert.json").is_file():
        raise ConfigError(
            explain(f"--out {args.out}, which holds other files", "a new or empty folder",
                    "choose another; nothing was overwritten")
        )  # fmt: skip


def _device(name: str) -> str:
    import torch

    found = "cuda" if name == "auto" and torch.cuda.is_available() else name
    found = "cpu" if found == "auto" else found
    if found.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            explain(f"--device {name}", "a device of this machine", "leave it out, or --device cpu")
        )
    return found


def _settings(job: Job, items: list[tuple[str, str]], model: Model) -> dict[str, Any]:
    from ganinv.core.safe.io import sha256_file

    mixing = [job.outputs, job.mix_layers, job.mix_alpha, job.seed]
    return {
        "checkpoint_sha256": sha256_file(job.checkpoint),
        "generator_sha256": model.G.sha256,
        "images_sha256": hashlib.sha256(repr(items).encode()).hexdigest(),
        "batch_size": job.batch_size,
        "fit": job.fit,
        "align": align_settings(job.source),
        "size": list(model.input_size),
        "num_ws": model.num_ws,
        "w_dim": model.w_dim,
        "task": type(task_of(model, job.task)).__name__,
        "mixing": mixing if job.outputs > 1 else None,
    }


def _done(job: Job, settings: dict[str, Any]) -> bool:
    """Whether all is there; else OUT is made ready.

    Raises:
        ConfigError: OUT belongs to another command.
    """
    from ganinv.core.safe.io import write_atomic

    finished, begun = job.out / "invert.json", job.parts / "settings.json"
    there = next((path for path in (finished, begun) if path.is_file()), None)
    if there is None:
        write_atomic(begun, json.dumps(settings, indent=1).encode())
        return False
    content = json.loads(there.read_text())
    theirs = content["settings"] if there == finished else content
    different = [key for key in settings if theirs.get(key) != settings[key]]
    if different:
        raise ConfigError(
            explain(f"--out {job.out}, begun with other {', '.join(different)}",
                    "the same command, which goes on, or a new folder",
                    "choose another --out; nothing was overwritten")
        )  # fmt: skip
    return there == finished


# ------------------------------------------------------------------ working


class Worker:
    """Inverts batches; one in each process."""

    def __init__(self, job: Job, model: Model | None, number: int) -> None:
        import torch

        from ganinv.evaluation.open import open_model

        self.job, self.source = job, job.source
        self.targets = targets(job.names)
        if model is None:
            model = open_model(job.checkpoint, job.generator).model
        device = torch.device(job.device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", number % torch.cuda.device_count())
        self.device, self.model = device, model.to(device)
        self.task = task_of(model, job.task)

    def invert(self, number: int) -> int:
        """Invert a batch: its images, then its part; returns its number of images."""
        import torch

        from ganinv.core.safe.io import write_safetensors

        names, pixels, failed = [], [], []
        for name in self.job.batch(number):
            found = self._read(name)
            if isinstance(found, str):
                failed.append([name, found])
            else:
                names.append(name)
                pixels.append(found)
        codes = torch.empty(0, self.model.num_ws, self.model.w_dim)
        if pixels:
            with torch.inference_mode():
                wp = self.model.encode(self.task.read(torch.stack(pixels).to(self.device)))
                for output in range(self.job.outputs):
                    self._write(names, self._mixed(wp, names, output), output)
            codes = wp.float().cpu()
        metadata = {"names": names, "failed": failed}
        write_safetensors(self.job.part(number), {"wp": codes}, metadata)
        return len(names) + len(failed)

    def _mixed(self, wp: Tensor, names: list[str], output: int) -> Tensor:
        """The codes of an output: the first are the encoder's own, the others mixed."""
        if output == 0:
            return wp
        from ganinv.core.seed import derive_seed, randn_rows
        from ganinv.editing.mix import mix

        generator = self.model.G
        seeds = [derive_seed(self.job.seed, "mix", name, output) for name in names]
        w = generator.mapping(randn_rows(seeds, (generator.z_dim,), self.device))
        return mix(wp, w, self.job.mix_layers, self.job.mix_alpha)

    def _write(self, names: list[str], wp: Tensor, output: int) -> None:
        from ganinv.core.image import to_uint8
        from ganinv.core.safe.io import write_atomic
        from ganinv.dataset.codec import encode

        shown = to_uint8(self.model.render(wp)).permute(0, 2, 3, 1).cpu().numpy()
        for name, picture in zip(names, shown, strict=True):
            target = self.targets[name]
            if output:
                target = f"{target.removesuffix('.png')}-mix{output}.png"
            write_atomic(self.job.out / "images" / target, encode(picture, "png", 95))

    def _read(self, name: str) -> Any:
        """uint8 [C0,H,W], or why it could not be read."""
        try:
            data = self.source.read(name)
            return read(data, self.task, self.model.input_size, self.job.fit)
        except Exception as error:  # a broken image ends in any of a dozen kinds; none stops us
            return (str(error).splitlines() or [type(error).__name__])[0][:200]


_worker: list[Worker] = []  # of this process


def _start(job: Job, counter: Any) -> None:
    import torch

    from ganinv.dataset.shard import cores

    with counter.get_lock():
        number = counter.value
        counter.value += 1
    torch.set_num_threads(max(1, cores() // job.processes))
    _worker.append(Worker(job, None, number))


def _one(number: int) -> int:
    return _worker[0].invert(number)


def _counts(job: Job, todo: list[int], model: Model) -> Iterator[int]:
    """Images of each batch, as they are finished."""
    if job.processes == 1 or len(todo) < 2:
        worker = Worker(job, model, 0)
        yield from map(worker.invert, todo)
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    counter = context.Value("i", 0)
    with ProcessPoolExecutor(
        min(job.processes, len(todo)), context, _start, (job, counter)
    ) as pool:
        yield from pool.map(_one, todo)


def _work(job: Job, todo: list[int], model: Model) -> None:
    from tqdm import tqdm

    try:
        total = sum(len(job.batch(number)) for number in todo)
        with tqdm(total=total, desc="inverting", unit="img") as bar:
            for count in _counts(job, todo, model):
                bar.update(count)
    except KeyboardInterrupt:
        print("\nstopped; finished batches are kept: run the same command again to go on")
        raise


def _finish(job: Job, settings: dict[str, Any]) -> None:
    """Join the parts, then forget them."""
    import numpy as np
    import torch

    from ganinv.core.safe.io import read_safetensors, write_atomic

    codes, names, failed = [], [], []
    for number in range(job.batches):
        tensors, metadata = read_safetensors(job.part(number))
        codes.append(tensors["wp"])
        names += metadata["names"]
        failed += metadata["failed"]
    wp = torch.cat(codes)
    for name, save in (("latents.pt", torch.save), ("latents.npy", None)):
        buffer = io.BytesIO()
        if save is not None:
            save(wp, buffer)
        else:
            np.save(buffer, wp.numpy(), allow_pickle=False)
        write_atomic(job.out / name, buffer.getvalue())
    metadata = {"settings": settings, "images": names, "failed": failed}
    write_atomic(job.out / "invert.json", json.dumps(metadata, indent=1).encode())
    shutil.rmtree(job.parts)
    shape = "x".join(map(str, wp.shape))
    print(f"{job.out}: {len(names)} images, latents.pt and latents.npy [{shape}]")
    if failed:
        print(f"could not be read: {len(failed)} (invert.json lists all)")
        for name, reason in failed[:LISTED]:
            print(f"  {name}: {reason}")
