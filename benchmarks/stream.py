"""Images per second and core: the shards' stream against the usual loader of 1024-px PNGs.

    python benchmarks/stream.py [--images 40] [--json benchmarks/results/stream.json]

The usual loader is what the released pSp and e4e do for each image of FFHQ: PIL decodes the 1024-px
PNG, torchvision's Resize(256), RandomHorizontalFlip, ToTensor and Normalize follow. Ours reads the
same images, written once by `ganinv shard --size 256`, through the real training stream: order,
pread, JPEG decoding, mirroring, collation into uint8 batches; `to_unit` on the CPU is timed too,
though it belongs on the device. The bare decoder is given the same files in memory and its pixels
are thrown away: the rest is what the stream costs. All run in this process on one thread, in turn,
and the medians of the rounds count; seconds are CPU seconds, so that another job on the machine
changes the ratios little. The PNGs are smooth random fields with noise, of FFHQ's size in bytes.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision import transforms

from ganinv.core.image import to_unit
from ganinv.core.safe.io import write_atomic
from ganinv.dataset.index import read_index
from ganinv.dataset.order import Order, Positions
from ganinv.dataset.shard import Plan, write_set
from ganinv.dataset.source import Resized, open_source
from ganinv.dataset.stream import Loader, TrainSet

BATCH = 8


def write_pngs(folder: Path, count: int) -> float:
    """Write noisy 1024-px PNGs; returns their mean size in MB."""
    rng = np.random.default_rng(0)
    for i in range(count):
        field = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        smooth = np.asarray(field.resize((1024, 1024), Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = smooth + rng.normal(0, 1.5, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")
    return sum(p.stat().st_size for p in folder.iterdir()) / count / 1e6


def usual_rate(folder: Path) -> float:
    """Images per CPU second of the usual loader."""
    transform = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.RandomHorizontalFlip(0.5),
            transforms.ToTensor(),
            transforms.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ]
    )
    paths = sorted(folder.iterdir())
    start = time.process_time()
    for i in range(0, len(paths), BATCH):
        batch = [transform(Image.open(p).convert("RGB")) for p in paths[i : i + BATCH]]
        torch.stack(batch)
    return len(paths) / (time.process_time() - start)


def write_shards(folder: Path, out: Path) -> float:
    """Shards of the same images by the code of `ganinv shard`; returns kB an image."""
    source = open_source(folder)
    items = [(name, Path(name).stem) for name, _ in source.items()]
    make = Resized(source, items, 1000, (256, 256), "crop", "jpg", 95)
    write_set(out, Plan(len(items), 1, make, (256, 256), "jpg", {}, {}), 1, "writing shards")
    return float(read_index(out).raw["shards"][0]["bytes"]) / len(items) / 1e3


def our_rate(out: Path, batches: int, floats: bool) -> float:
    """Images per CPU second of the training stream."""
    index = read_index(out)
    stream = TrainSet(index, Order(index.starts, seed=0, window=8), hflip_seed=1)
    positions = Positions(start=0, batch_size=BATCH, rank=0, world_size=1)
    loader = Loader(
        stream,
        batches=positions,
        samples=len(index),
        max_bad_fraction=0.0,
        num_workers=0,
        pin_memory=False,
    )
    found = iter(loader)
    next(found)
    start = time.process_time()
    for batch in islice(found, batches):
        if floats:
            to_unit(batch["image"])
    return batches * BATCH / (time.process_time() - start)


def bare_rate(out: Path, images: int) -> float:
    """Images per CPU second of the JPEG decoder alone."""
    index = read_index(out)
    tar = (out / index.names[0]).read_bytes()
    files = [tar[offset : offset + size] for offset, size in index.offsets[:, :2].tolist()]
    start = time.process_time()
    for i in range(images):
        simplejpeg.decode_jpeg(files[i % len(files)], colorspace="RGB")
    return images / (time.process_time() - start)


def main() -> None:
    """Measure all in one run, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--batches", type=int, default=100, help="of a round")
    parser.add_argument("--rounds", type=int, default=5, help="of all four, one after the other")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/stream.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pngs, out = Path(folder) / "png", Path(folder) / "shards"
        pngs.mkdir()
        png_mb = write_pngs(pngs, args.images)
        jpg_kb = write_shards(pngs, out)
        rounds = [
            (
                usual_rate(pngs),
                bare_rate(out, args.batches * BATCH),
                our_rate(out, args.batches, floats=False),
                our_rate(out, args.batches, floats=True),
            )
            for _ in range(args.rounds)
        ]
    usual, bare, ours, with_floats = (median(rates) for rates in zip(*rounds, strict=True))
    share = median(r[2] / r[1] for r in rounds)
    ratio, ratio_with_floats = (median(r[i] / r[0] for r in rounds) for i in (2, 3))
    result = {
        "usual_images_per_cpu_second": round(usual, 1),
        "bare_decoder_images_per_cpu_second": round(bare, 1),
        "ours_images_per_cpu_second": round(ours, 1),
        "ours_with_floats_on_the_cpu": round(with_floats, 1),
        "share_of_the_bare_decoder": round(share, 3),
        "ratio": round(ratio, 1),
        "ratio_with_floats_on_the_cpu": round(ratio_with_floats, 1),
        "rounds": args.rounds,
        "png_mb": round(png_mb, 2),
        "jpg_kb": round(jpg_kb, 1),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    print(f"usual loader  {usual:8.1f} images/s a core (1024-px PNG of {png_mb:.2f} MB)")
    print(f"bare decoder  {bare:8.1f} images/s a core; the stream reaches {share:.0%} of it")
    print(f"ganinv stream {ours:8.1f} images/s a core (256-px JPEG of {jpg_kb:.1f} kB), uint8")
    print(f"  and floats  {with_floats:8.1f} images/s a core, made on the CPU")
    print(f"ratio {result['ratio']}x, with floats {result['ratio_with_floats_on_the_cpu']}x")
    write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())
    print(f"written: {args.json}")


if __name__ == "__main__":
    main()
