"""`ganinv invert`: a folder of images to codes and reconstructions.

OUT/images/<name>.png   what the codes give, at the generator's size
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
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, DataError, explain

if TYPE_CHECKING:
    from ganinv.export.inverter import Inverter

EXAMPLES = """examples:
  ganinv invert runs/NAME/checkpoints/best.ckpt photos --out inverted
  ganinv invert e4e_ffhq_encode.pt aligned --out inverted --batch-size 16 --processes 2

Images are turned upright, cropped to the encoder's aspect and resized, as ganinv shard does. Faces
must be aligned as the encoder's training images were.
"""
LISTED = 10  # failures printed; invert.json has them all


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
    parser.add_argument("--generator", type=Path, metavar="FILE", help="where it has moved")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Job:
    """All that a process needs to know; it travels."""

    checkpoint: Path
    generator: Path | None
    folder: Path
    out: Path
    names: list[str]
    batch_size: int
    fit: str
    device: str
    processes: int

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
    from ganinv.cli._model import open_model
    from ganinv.dataset.source import open_source

    items = open_source(args.folder).items()
    if not items:
        raise DataError(
            explain(f"{args.folder} holds no images", "png, jpg, webp, bmp, tiff or ppm files",
                    "check the path")
        )  # fmt: skip
    model, words = open_model(args.checkpoint, args.generator)
    inverter = _with_encoder(model, words, args.checkpoint)
    job = Job(
        checkpoint=args.checkpoint,
        generator=args.generator,
        folder=args.folder,
        out=args.out,
        names=[name for name, _ in items],
        batch_size=args.batch_size,
        fit=args.fit,
        device=_device(args.device),
        processes=args.processes,
    )
    settings = _settings(job, items, inverter)
    if _done(job, settings):
        print(f"{job.out}: already done by the same command")
        return 0
    print(f"{args.checkpoint}: {words}")
    todo = [n for n in range(job.batches) if not job.part(n).is_file()]
    if len(todo) < job.batches:
        print(f"going on after {job.batches - len(todo)} of {job.batches} batches")
    _work(job, todo, inverter)
    _finish(job, settings)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("batch_size", "processes"):
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


def _with_encoder(model: Any, words: str, path: Path) -> Inverter:
    from ganinv.export.inverter import Inverter

    if not isinstance(model, Inverter):
        raise ConfigError(
            explain(f"{path} ({words})", "a model with an encoder", "pass the checkpoint of one")
        )
    if model.image_channels != 3:
        raise ConfigError(
            explain(f"an encoder of {model.image_channels} channels", "one of RGB images",
                    "invert its inputs with ganinv.load(...).encode")
        )  # fmt: skip
    return model


def _device(name: str) -> str:
    import torch

    found = "cuda" if name == "auto" and torch.cuda.is_available() else name
    found = "cpu" if found == "auto" else found
    if found.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            explain(f"--device {name}", "a device of this machine", "leave it out, or --device cpu")
        )
    return found


# ------------------------------------------------------------------ resuming


def _settings(job: Job, items: list[tuple[str, str]], inverter: Inverter) -> dict[str, Any]:
    from ganinv.core.io import sha256_file

    return {
        "checkpoint_sha256": sha256_file(job.checkpoint),
        "generator_sha256": inverter.generator.sha256,
        "images_sha256": hashlib.sha256(repr(items).encode()).hexdigest(),
        "batch_size": job.batch_size,
        "fit": job.fit,
        "size": list(inverter.input_size),
        "num_ws": inverter.num_ws,
        "w_dim": inverter.w_dim,
    }


def _done(job: Job, settings: dict[str, Any]) -> bool:
    """Whether all is there; else OUT is made ready.

    Raises:
        ConfigError: OUT belongs to another command.
    """
    from ganinv.core.io import write_atomic

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

    def __init__(self, job: Job, inverter: Inverter | None, number: int) -> None:
        import torch

        from ganinv.cli._model import open_model
        from ganinv.dataset.source import open_source

        self.job, self.source = job, open_source(job.folder)
        self.targets = _targets(job.names)
        if inverter is None:
            inverter = _with_encoder(*open_model(job.checkpoint, job.generator), job.checkpoint)
        device = torch.device(job.device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", number % torch.cuda.device_count())
        self.device, self.inverter = device, inverter.to(device)

    def invert(self, number: int) -> int:
        """Invert a batch: its images, then its part; returns its number of images."""
        import torch

        from ganinv.core.image import to_uint8, to_unit
        from ganinv.core.io import write_atomic, write_safetensors
        from ganinv.dataset.codec import encode

        names, pixels, failed = [], [], []
        for name in self.job.batch(number):
            found = self._read(name)
            if isinstance(found, str):
                failed.append([name, found])
            else:
                names.append(name)
                pixels.append(found)
        codes = torch.empty(0, self.inverter.num_ws, self.inverter.w_dim)
        if pixels:
            with torch.inference_mode():
                image = to_unit(torch.stack(pixels).to(self.device))
                wp, x_hat = self.inverter(image)
            codes = wp.float().cpu()
            shown = to_uint8(x_hat).permute(0, 2, 3, 1).cpu().numpy()
            for name, picture in zip(names, shown, strict=True):
                write_atomic(self.job.out / "images" / self.targets[name],
                             encode(picture, "png", 95))  # fmt: skip
        told = {"names": names, "failed": failed}
        write_safetensors(self.job.part(number), {"wp": codes}, told)
        return len(names) + len(failed)

    def _read(self, name: str) -> Any:
        """uint8 [3,H,W], or why it could not be read."""
        import torch

        from ganinv.dataset.codec import load, resize

        try:
            pixels = resize(load(self.source.read(name)), self.inverter.input_size, self.job.fit)  # type: ignore[arg-type]
        except Exception as error:  # a broken image ends in any of a dozen kinds; none stops us
            return (str(error).splitlines() or [type(error).__name__])[0][:200]
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _targets(names: list[str]) -> dict[str, str]:
    """name -> its reconstruction's: the same path, within OUT, with .png for its suffix; where two
    would meet, with .png added."""
    plain = {name: _inside(name) for name in names}
    often = Counter(str(path.with_suffix(".png")) for path in plain.values())
    targets: dict[str, str] = {}
    taken: set[str] = set()
    for name, path in plain.items():
        target = str(path.with_suffix(".png"))
        target = target if often[target] == 1 else f"{path}.png"
        while target in taken:  # a name that ends in .jpg.png, beside one in .jpg
            target = f"{target}.png"
        targets[name] = target
        taken.add(target)
    return targets


def _inside(name: str) -> PurePosixPath:
    """A relative path that leads nowhere else; a zip file or database may name anything."""
    parts = re.sub(r"[\x00-\x1f\\:]", "_", name).split("/")
    kept = [part for part in parts if part not in ("", ".", "..")]
    return PurePosixPath(*kept or ["_"])


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


def _counts(job: Job, todo: list[int], inverter: Inverter) -> Iterator[int]:
    """Images of each batch, as they are finished."""
    if job.processes == 1 or len(todo) < 2:
        worker = Worker(job, inverter, 0)
        yield from map(worker.invert, todo)
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    counter = context.Value("i", 0)
    with ProcessPoolExecutor(
        min(job.processes, len(todo)), context, _start, (job, counter)
    ) as pool:
        yield from pool.map(_one, todo)


def _work(job: Job, todo: list[int], inverter: Inverter) -> None:
    from tqdm import tqdm

    try:
        total = sum(len(job.batch(number)) for number in todo)
        with tqdm(total=total, desc="inverting", unit="img") as bar:
            for count in _counts(job, todo, inverter):
                bar.update(count)
    except KeyboardInterrupt:
        print("\nstopped; finished batches are kept: run the same command again to go on")
        raise


def _finish(job: Job, settings: dict[str, Any]) -> None:
    """Join the parts, then forget them."""
    import numpy as np
    import torch

    from ganinv.core.io import read_safetensors, write_atomic

    codes, names, failed = [], [], []
    for number in range(job.batches):
        tensors, told = read_safetensors(job.part(number))
        codes.append(tensors["wp"])
        names += told["names"]
        failed += told["failed"]
    wp = torch.cat(codes)
    for name, save in (("latents.pt", torch.save), ("latents.npy", None)):
        buffer = io.BytesIO()
        if save is not None:
            save(wp, buffer)
        else:
            np.save(buffer, wp.numpy(), allow_pickle=False)
        write_atomic(job.out / name, buffer.getvalue())
    told = {"settings": settings, "images": names, "failed": failed}
    write_atomic(job.out / "invert.json", json.dumps(told, indent=1).encode())
    shutil.rmtree(job.parts)
    shape = "x".join(map(str, wp.shape))
    print(f"{job.out}: {len(names)} images, latents.pt and latents.npy [{shape}]")
    if failed:
        print(f"could not be read: {len(failed)} (invert.json lists all)")
        for name, reason in failed[:LISTED]:
            print(f"  {name}: {reason}")
