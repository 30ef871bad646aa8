"""What a GPU makes of ganinv, by one command, in less than eight minutes on a data-centre GPU.

    python benchmarks/gpu.py                                 full size, networks of random weights
    python benchmarks/gpu.py --size avatars --device cpu     the script itself, without a GPU

Three parts, printed as they end and written to benchmarks/results/gpu.json:

    agreement  two steps of every method from the same weights and images: on the CPU in float32, on
               the device in float32 (without TF32) and in bfloat16. Of every loss the relative
               difference from the CPU's, the largest of both steps; the second step shows what the
               first one made of the weights.
    speed      pSp, e4e and IDInvert: images/s, TFLOP/s, share of what a large matrix product of the
               same precision reaches on this device in the same run, and peak memory. Rows:
                   plain           the released trainers' step (benchmarks/train_step.py), float32
                   eager           ganinv's step, memory in torch's default layout, float32
                   channels-last   ganinv's step as it trains, float32
                   bf16            the same with trainer.precision=bf16-mixed
                   compiled        bf16 with G's synthesis under torch.compile
    waits      a trace of pSp steps (bf16): the share of a step in which the device computes, kernel
               launches, seconds in which the CPU waits for the device, and the operators that take
               most of the device's time; the trace itself for chrome://tracing in gpu_trace.json.gz

The recipes are the published ones (`experiment=`) with random weights; speed needs no trained ones.
What fails is printed and written with its error; the rest goes on, and the script ends with 1.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from torch import Tensor
from torch.utils.data import DataLoader
from train_step import bare_trainer, now, ours, plain, plain_idinvert

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.core.safe.io import write_atomic
from ganinv.method.base import Method
from ganinv.method.idinvert import IDInvert
from ganinv.trainer.dry import Noise, with_random_weights
from ganinv.trainer.flops import Flops
from ganinv.trainer.quiet import quieten

ROOT = Path(__file__).resolve().parents[1]
FULL = {
    "psp": ["experiment=psp_ffhq1024"],
    "e4e": ["experiment=e4e_ffhq1024"],
    "restyle_psp": ["experiment=restyle_psp_ffhq1024"],
    "restyle_e4e": ["experiment=restyle_e4e_ffhq1024"],
    "idinvert": ["experiment=idinvert_ffhq256"],
    "bdinvert": ["experiment=bdinvert_ffhq1024_16"],
    "gan": ["method=gan"],
}
SMALL = {name: [f"method={name}"] for name in FULL}
TIMED = ("psp", "e4e", "idinvert")
Row = dict[str, Any]


def main() -> None:
    """Measure, print, write JSON."""
    args = options()
    quieten()
    result: Row = {"size": args.size, "torch": torch.__version__}
    result["device"] = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    parts: dict[str, Callable[[argparse.Namespace], Any]]
    parts = {"agreement": agreement, "speed": speed, "waits": waits}
    began, failed = time.perf_counter(), False
    for name in args.parts:
        print(f"\n{name}", flush=True)
        try:
            result[name] = parts[name](args)
        except Exception as error:  # the other parts are worth having
            traceback.print_exc()
            result[name], failed = {"failed": told(error)}, True
        result["seconds"] = round(time.perf_counter() - began)
        write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())
    print(f"\nwritten: {args.json}, after {result['seconds']} s")
    sys.exit(int(failed or "failed" in json.dumps(result)))


def options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("full", "avatars"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, default=8, help="images of a step that is timed")
    parser.add_argument("--steps", type=int, default=6, help="of each row that is timed")
    parser.add_argument("--methods", nargs="+", default=list(FULL), choices=list(FULL))
    names = ["agreement", "speed", "waits"]
    parser.add_argument("--parts", nargs="+", default=names, choices=names)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/gpu.json"))
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --size avatars --device cpu tries the script itself")
    return args


# ------------------------------------------------------------------ methods of random weights


def config(size: str, name: str, batch: int) -> DictConfig:
    """A recipe, as `python train.py ... trainer=dry` composes it."""
    recipe = (FULL if size == "full" else SMALL)[name]
    words = [*recipe, "trainer=dry", "logger=csv", f"dry.batch_size={batch}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=words, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def built(size: str, name: str, batch: int) -> tuple[Method, dict[str, Any]]:
    """A method and a batch of noise for it; the same of every call."""
    with tempfile.TemporaryDirectory() as folder:
        pl.seed_everything(0, verbose=False)
        cfg, _ = with_random_weights(config(size, name, batch), Path(folder))
        return build_method(cfg, instantiate(cfg.generator)), Noise(cfg).batch()


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def free(*parts: Any) -> None:
    """Give the device's memory back."""
    del parts
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def without_tf32() -> Iterator[None]:
    """Products of float32 numbers in float32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


# ------------------------------------------------------------------ agreement


class Losses(pl.Callback):
    """What the method watched, step by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, *_: Any) -> None:
        self.steps.append({key: float(value) for key, value in method.values.items()})


def two_steps(
    method: Method, batch: dict[str, Any], device: str, precision: Any
) -> list[dict[str, float]]:
    """The losses of two steps on one batch."""
    watch = Losses()
    trainer = bare_trainer(device, precision, watch)
    count = len(batch["key"])
    batches = [batch, batch | {"position": batch["position"] + count}]
    trainer.fit(method, DataLoader(batches, batch_size=None))
    return watch.steps


def agreement(args: argparse.Namespace) -> dict[str, Row]:
    """method -> row -> loss -> relative difference from the CPU in float32."""
    found: dict[str, Row] = {}
    for name in args.methods:
        method, batch = built(args.size, name, 2)
        on_cpu = two_steps(copy.deepcopy(method), batch, "cpu", "32-true")
        found[name] = {}
        for precision in ("32-true", "bf16-mixed"):
            try:
                with without_tf32():
                    here = two_steps(copy.deepcopy(method), batch, args.device, precision)
                differences = {key: differs(on_cpu, here, key) for key in on_cpu[0]}
                worst = max(differences, key=lambda key: differences[key])
                row: Row = {"worst": worst, "difference": differences[worst], "all": differences}
                print(f"  {name:12} {precision:10} {worst:24} {differences[worst]:.1e}", flush=True)
            except Exception as error:
                traceback.print_exc()
                row = {"failed": told(error)}
                print(f"  {name:12} {precision:10} {row['failed']}", flush=True)
            found[name][precision] = row
            free()
    return found


def differs(first: list[dict[str, float]], second: list[dict[str, float]], key: str) -> float:
    """The largest relative difference of a loss over the steps."""
    pairs = [(a[key], b[key]) for a, b in zip(first, second, strict=True)]
    return max(abs(a - b) / max(abs(a), 1e-6) for a, b in pairs)


# ------------------------------------------------------------------ speed


def released(method: Method, device: str) -> Callable[[Tensor, int], list[float]]:
    """The plain loop of a method."""
    method = method.to(device)
    return plain_idinvert(method) if isinstance(method, IDInvert) else plain(method)


def eager(method: Method, device: str) -> Callable[[Tensor, int], list[float]]:
    """Not in channels-last memory."""
    return ours(method.to(memory_format=torch.contiguous_format), device)


def compiled(method: Method, device: str) -> Callable[[Tensor, int], list[float]]:
    """G's synthesis as one graph."""
    G: Any = method.G
    G.synthesis.run_layers = torch.compile(G.synthesis.run_layers, fullgraph=True, dynamic=False)
    return ours(method, device, "bf16-mixed")


ROWS: dict[str, Callable[[Any, str], Callable[[Tensor, int], list[float]]]] = {
    "plain": released,
    "eager": eager,
    "channels-last": ours,
    "bf16": lambda method, device: ours(method, device, "bf16-mixed"),
    "compiled": compiled,
}


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of some."""
    n = 8192 if device == "cuda" else 1024
    a, b, best = *(torch.randn(2, n, n, device=device, dtype=dtype)), 0.0
    for _ in range(8):
        start = now()
        a @ b
        best = max(best, 2 * n**3 / (now() - start))
    return best


def speed(args: argparse.Namespace) -> Row:
    """method -> row -> numbers; and the device's own rates."""
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    rates = {name: matrix_rate(args.device, dtype) for name, dtype in types.items()}
    found: Row = {"matrix_tflops": {k: round(v / 1e12, 1) for k, v in rates.items()}}
    print(f"  a matrix product: {found['matrix_tflops']} TFLOP/s", flush=True)
    for name in [n for n in TIMED if n in args.methods]:
        found[name] = {}
        for row, make in ROWS.items():
            try:
                numbers = timed(args, name, make, rates["bfloat16" if "bf16" in row or row ==
                                                        "compiled" else "float32"])  # fmt: skip
                base = found[name].get("plain", numbers)
                if "images_per_second" in base:
                    ratio = numbers["images_per_second"] / base["images_per_second"]
                    numbers["times_plain"] = round(ratio, 2)
            except Exception as error:
                traceback.print_exc()
                numbers = {"failed": told(error)}
            found[name][row] = numbers
            print(f"  {name:9} {row:14} {numbers}", flush=True)
            free()
    return found


def timed(args: argparse.Namespace, name: str, make: Any, peak: float) -> Row:
    """One row: the median of `steps` after two to warm up."""
    method, batch = built(args.size, name, args.batch)
    run, images = make(method, args.device), batch["image"].to(args.device)
    free()
    run(images, 2)
    with Flops() as counter:
        run(images, 1)
    laps = run(images, args.steps)
    seconds, work = statistics.median(laps), counter.total
    row: Row = {"images_per_second": round(args.batch / seconds, 2)}
    if make is not compiled:  # the counter does not see into compiled code
        row |= {"tflops": round(work / seconds / 1e12, 2), "share": round(work / seconds / peak, 3)}
    if args.device == "cuda":
        row["gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    return row


# ------------------------------------------------------------------ where a step waits


def waits(args: argparse.Namespace) -> Row:
    """Of a pSp step in bf16."""
    from torch.profiler import ProfilerActivity, profile

    method, batch = built(args.size, "psp", args.batch)
    run, images = ours(method, args.device, "bf16-mixed"), batch["image"].to(args.device)
    run(images, 2)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (args.device == "cuda")
    with profile(activities=kinds) as trace:
        laps = run(images, args.steps)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    trace.export_chrome_trace(str(args.json.with_name("gpu_trace.json.gz")))
    events, count = trace.key_averages(), len(laps)
    busy = sum(e.self_device_time_total for e in events) / 1e6 / count
    waiting = [e for e in events if e.key in ("cudaStreamSynchronize", "cudaDeviceSynchronize",
                                              "cudaEventSynchronize", "aten::item")]  # fmt: skip
    row: Row = {
        "seconds_a_step": round(statistics.median(laps), 4),
        "device_busy_seconds_a_step": round(busy, 4),
        "launches_a_step": sum(e.count for e in events if "LaunchKernel" in e.key) / count,
        "waits_a_step": {
            e.key: {"calls": e.count / count, "seconds": round(e.cpu_time_total / 1e6 / count, 4)}
            for e in waiting
        },
    }
    most = sorted(events, key=lambda e: -(e.self_device_time_total or e.self_cpu_time_total))[:15]
    row["most"] = {
        e.key[:80]: round((e.self_device_time_total or e.self_cpu_time_total) / 1e3 / count, 2)
        for e in most
    }
    print(json.dumps(row, indent=1), flush=True)
    return row


if __name__ == "__main__":
    main()
