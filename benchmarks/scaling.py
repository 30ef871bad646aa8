"""One batch over 1, 2 and 4 CPU processes, and what of a large run follows from it.

    python benchmarks/scaling.py [--ranks 1 2 4] [--batch 16] [--steps 60] [--json FILE]

Trains pSp on the built-in domain, the same total batch each time, one thread a process. Reports
images per second, the share of time that ranks wait for one another (the all-reduce and the
slower rank), and the bytes that a rank hands to all-reduces in a step. Then writes a checkpoint of
256 MiB, to see how long serialising and syncing take here. docs/CLUSTER.md works with the numbers.

More processes than idle cores share them: the rates then show the machine, not the method.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ganinv.core.safe.io import write_atomic
from ganinv.trainer.checkpoint_io import AtomicCheckpointIO

ROOT = Path(__file__).resolve().parents[1]


def trained(ranks: int, batch: int, steps: int, folder: Path) -> dict[str, float]:
    """The medians of the entries of a run, the first one (warm-up) left out."""
    command = [
        sys.executable,
        "train.py",
        "logger=csv",
        "trainer.threads=1",
        f"trainer.devices={ranks}",
        f"dataset.batch_size={batch // ranks}",
        f"trainer.max_kimg={batch * steps / 1000}",
        f"trainer.log_every_images={batch * 5}",
        "trainer.val_every_kimg=1000",
        "trainer.save_every_kimg=1000",
        f"run_dir={folder}",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    with open(folder / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/images_per_sec"]][1:]
    names = ("images_per_sec", "data_wait_share", "rank_wait_share", "reduced_mib_per_step")
    found = {}
    for name in names:
        values = [float(row[f"speed/{name}"]) for row in rows if row.get(f"speed/{name}")]
        if values:
            found[name] = median(values)
    return found


def checkpoint(folder: Path, mib: int) -> dict[str, float]:
    """Seconds per GiB until training may go on, and until the file is on disk."""
    content = {"state_dict": {str(i): torch.randn(2**18) for i in range(mib)}}
    files = AtomicCheckpointIO(asynchronous=True)
    begun = time.perf_counter()
    files.save_checkpoint(content, folder / "last.ckpt")
    copied = time.perf_counter() - begun
    files.wait()
    written = time.perf_counter() - begun
    return {"copied_s_per_gib": copied / mib * 1024, "written_s_per_gib": written / mib * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch", type=int, default=16, help="images of a step, over all ranks")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/scaling.json")
    args = parser.parse_args()
    result: dict[str, Any] = {"batch": args.batch, "steps": args.steps, "runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        for ranks in args.ranks:
            load = os.getloadavg()[0]
            run = trained(ranks, args.batch, args.steps, Path(folder) / str(ranks))
            result["runs"][ranks] = run | {"load_before": load}
            print(f"{ranks} ranks (load before: {load:.1f}): {run}", flush=True)
        result["checkpoint"] = checkpoint(Path(folder), 256)
    print(result["checkpoint"])
    result |= {"cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    write_atomic(args.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
