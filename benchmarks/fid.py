"""FID-Lite0 of the shipped generator against drawn faces that it was not trained on.

    python benchmarks/fid.py [--weights stylegan2_avatars64] [--images 5000]

Two numbers in one run: samples (psi 1, random noise) against drawn faces, and the floor, other
drawn faces against the same ones. FID over EfficientNet-Lite0 compares with nothing but itself at
the same number of images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from ganinv.backbone.efficientnet_lite0 import efficientnet_lite0
from ganinv.core.image import to_uint8, to_unit
from ganinv.core.interface import Generator
from ganinv.core.latent import repeat_w
from ganinv.core.safe.io import write_atomic
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.dataset import avatars
from ganinv.generator.importer.load import load_generator
from ganinv.metric.fid import FID
from ganinv.metric.metric import Sample

FIRST_SEED = 30_000_000  # beyond training, validation and test


def faces(first: int, numbers: range) -> Tensor:
    drawn = [torch.tensor(avatars.draw(FIRST_SEED + first + i, 64)[0]) for i in numbers]
    return to_unit(torch.stack(drawn).permute(0, 3, 1, 2))


@torch.no_grad()
def samples(generator: Generator, numbers: range) -> Tensor:
    z = randn_rows([derive_seed("fid", i) for i in numbers], (generator.z_dim,), "cpu")
    wp = repeat_w(generator.mapping(z), generator.num_ws)
    seeds = [derive_seed("noise", i) for i in numbers]
    return to_unit(to_uint8(generator.synthesis(wp, noise="random", seeds=seeds)))


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="stylegan2_avatars64")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/fid.json"))
    args = parser.parse_args()
    generator = load_generator(weights=args.weights, resolution=64, kind=None, origin=None)
    backbone = efficientnet_lite0(weights=None)
    fid = FID(column="fid_lite0", backbone=backbone)
    rows: dict[str, list[dict[str, Tensor]]] = {"ours": [], "floor": []}
    for start in range(0, args.images, 50):
        numbers = range(start, min(start + 50, args.images))
        real = faces(0, numbers)
        rows["ours"].append(fid(Sample(real, samples(generator, numbers))))
        rows["floor"].append(fid(Sample(real, faces(args.images, numbers))))
    found = {
        name: fid.compute({key: torch.cat([part[key] for part in parts]) for key in parts[0]})
        for name, parts in rows.items()
    }
    result = {
        "weights": args.weights,
        "images": args.images,
        "fid_lite0": round(found["ours"]["fid_lite0"], 1),
        "floor": round(found["floor"]["fid_lite0"], 1),
    }
    print(result)
    write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
