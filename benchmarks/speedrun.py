"""How long pSp takes on the built-in domain until its test split's Lite0 distance is 1.95.

    python benchmarks/speedrun.py [--out runs/speedrun] [--arms now 0.1.0 ...] [--seeds 0]

An arm is a whole `python train.py` in a process of its own, with the words below, and the 512 test
faces measured with what it trained. The faces are drawn before, so that every arm finds them.

    now        python train.py
    0.1.0      the default run of that version
    others     `now` without one of the parts it is made of

seconds        the whole process: start, training, validation, checkpoints, the grid
img/s          of training steps alone, the median over the log's entries
Lite0, MSE     means over the test faces

An arm that was measured is read from OUT and not run again. Run it alone: the threads of a training
wait for one another when something else runs beside them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ganinv.core.safe.io import write_atomic

ROOT = Path(__file__).resolve().parents[1]
TARGET = 1.95  # the Lite0 distance that counts as learnt
ARMS: dict[str, list[str]] = {
    "now": [],
    "0.1.0": ["trainer.max_kimg=16", "trainer.rate_decay=0", "optimizer.lr=1e-3"],
    "rate 1e-3": ["optimizer.lr=1e-3"],
    "no decay": ["trainer.rate_decay=0"],
}


def call(*words: str) -> float:
    """Seconds that a command took."""
    print("$ python", *words, flush=True)
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, env=os.environ | {
        "WANDB_MODE": "offline"}, stdout=subprocess.DEVNULL)  # fmt: skip
    return time.perf_counter() - begun


def measured(arm: str, seed: int, out: Path) -> dict[str, Any]:
    """The row of an arm, now or before."""
    folder = out / f"{arm.replace(' ', '_')}_{seed}"
    row = folder / "row.json"
    if not row.is_file():
        train, evaluation = folder / "run", folder / "evaluation"
        words = [*ARMS[arm], f"seed={seed}", f"run_dir={train}", "logger=csv"]
        load, seconds = os.getloadavg()[0], call("train.py", *words)
        last = f"checkpoint={train / 'checkpoints' / 'last.ckpt'}"
        call("evaluate.py", last, "metric=[distortion,lite0]", f"output={evaluation}")
        found = json.loads((evaluation / "metrics.json").read_text())["rows"][0]
        with (train / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        rates = [float(r["speed/images_per_sec"]) for r in rows if r["speed/images_per_sec"]]
        kimg = max(float(r["kimg"]) for r in rows if r["kimg"])
        told = {"arm": arm, "seed": seed, "kimg": kimg, "seconds": seconds, "load_before": load}
        told |= {"images_per_second": median(rates), "lite0": found["lite0"], "mse": found["mse"]}
        write_atomic(row, json.dumps(told, indent=1).encode())
    known: dict[str, Any] = json.loads(row.read_text())
    return known


def table(rows: list[dict[str, Any]]) -> str:
    """For the terminal; the last column is the share of 0.1.0's seconds."""
    lines = [f"{'arm':<12} seed  kimg  seconds  img/s  Lite0   MSE    reached   by 0.1.0"]
    whole = {row["seed"]: row["seconds"] for row in rows if row["arm"] == "0.1.0"}
    for row in rows:
        share = f"{row['seconds'] / whole[row['seed']]:.2f}" if row["seed"] in whole else ""
        reached = "yes" if row["lite0"] <= TARGET else "no"
        lines.append(
            f"{row['arm']:<12} {row['seed']:>4} {row['kimg']:>5.4g} {row['seconds']:>8.0f} "
            f"{row['images_per_second']:>6.1f}  {row['lite0']:.3f}  {row['mse']:.4f}  "
            f"{reached:<8}  {share:>8}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what was not measured yet; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/speedrun"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/speedrun.json")
    args = parser.parse_args()
    out = args.out.resolve()
    if not (out / "warm").is_dir():
        call("train.py", "trainer.max_kimg=0.008", f"run_dir={out / 'warm'}", "logger=csv")
    rows = [measured(arm, seed, out) for seed in args.seeds for arm in args.arms]
    print(table(rows))
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    result = machine | {"target": TARGET, "words": ARMS, "rows": rows}
    write_atomic(args.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
