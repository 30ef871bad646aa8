"""Normal numbers a second: ganinv's Philox against torch.randn, on the CPU and on a GPU.

    python benchmarks/random_numbers.py [--json benchmarks/results/random_numbers.json]

A row is the noise of all layers of a generator for one step, drawn in one call as a step does:

    torch.randn    with the device's own generator, which is fast and repeats nothing
    a seed each    as ganinv drew before: torch.randn on the CPU with a generator an image, stacked
    ganinv         `randn_maps`, a function of (seed, place) alone, the same on every device

Rounds take turns; medians. On a GPU, times include the wait for its end.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.core.safe.io import write_atomic
from ganinv.core.seed import randn_maps

STEPS = {"64 px, 8 images": (64, 8), "1024 px, 2 images": (1024, 2)}


def layers(resolution: int) -> list[tuple[int, int, int]]:
    """Shapes of StyleGAN2's noise maps: one at 4 px, two at every other size."""
    sizes = [4] + [size for k in range(3, resolution.bit_length()) for size in (2**k, 2**k)]
    return [(1, size, size) for size in sizes]


def a_seed_each(seeds: list[int], shapes: list[tuple[int, int, int]], device: str) -> list[Tensor]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return [
        torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)
        for shape in shapes
    ]


def seconds(draw: Callable[[], Any], device: str) -> float:
    """Of one call."""
    start = time.perf_counter()
    draw()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measured(device: str, resolution: int, images: int, rounds: int) -> dict[str, float]:
    """Millions of numbers a second by row."""
    shapes, seeds = layers(resolution), list(range(images))
    count = images * sum(size**2 for _, size, _ in shapes)
    rows: dict[str, Callable[[], Any]] = {
        "torch.randn": lambda: [torch.randn(images, *s, device=device) for s in shapes],
        "a seed each": lambda: a_seed_each(seeds, shapes, device),
        "ganinv": lambda: randn_maps(seeds, shapes, device),
    }
    for draw in rows.values():
        seconds(draw, device)  # warm up
    laps: dict[str, list[float]] = {row: [] for row in rows}
    for _ in range(rounds):
        for row, draw in rows.items():
            laps[row].append(seconds(draw, device))
    return {row: count / statistics.median(found) / 1e6 for row, found in laps.items()}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/random_numbers.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for name, (resolution, images) in STEPS.items():
            found = measured(device, resolution, images, args.rounds)
            for row, rate in found.items():
                ratio = rate / found["torch.randn"]
                print(f"{device:4}  {name:18} {row:12} {rate:8.1f} M/s  {ratio:5.2f}x", flush=True)
            result[f"{device}, {name}, millions a second"] = {
                row: round(rate, 1) for row, rate in found.items()
            }
    write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())
    print(f"written: {args.json}")


if __name__ == "__main__":
    main()
