"""What one training step at full size launches, moves, computes, waits for and uploads.

    python benchmarks/cost.py [--method psp e4e ...] [--top 12] [--json FILE]

Counted on torch's meta device, which computes nothing: no GPU is needed, and every run agrees.

    calls       operators that read or write memory, views left out: about a GPU's kernel launches
    GB          read and written if each call reads its inputs and writes its outputs once, an image
    GFLOP       of convolutions and matrix products, an image
    read-outs   values of the device that the CPU waits for, and copies that wait for the device
    MiB         copied from the CPU to the device, an image, the images themselves left out

Two images, float32, eager, a step in which every penalty is due, with optimizers that have taken
one before. torch takes its foreach and fused forms for meta tensors as for those of a GPU. Weights
are random; a GPU's cache, kernels that read an input twice and what a library needs besides are not
counted, and what a backward convolution is handed but does not read is. What torch's compiler would
make of the parts that a run compiles: `benchmarks/inductor.py`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.core.safe.io import write_atomic
from ganinv.method.base import Method
from ganinv.trainer.dry import Noise, with_random_weights

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {
    "psp": "experiment=psp_ffhq1024",
    "e4e": "experiment=e4e_ffhq1024",
    "restyle_psp": "experiment=restyle_psp_ffhq1024",
    "restyle_e4e": "experiment=restyle_e4e_ffhq1024",
    "idinvert": "experiment=idinvert_ffhq256",
    "bdinvert": "experiment=bdinvert_ffhq1024_16",
    "gan": "method=gan",
}
VIEWS = {
    "view", "_unsafe_view", "expand", "transpose", "permute", "slice", "select", "unsqueeze", "t",
    "squeeze", "as_strided", "detach", "alias", "split", "unbind", "chunk", "_reshape_alias",
    "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
    "split_with_sizes", "unfold", "diagonal",
}  # fmt: skip
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
READ_OUTS = {  # what would make the CPU wait -> what it is answered here
    "item": lambda x: 0.0,
    "tolist": lambda x: torch.zeros(x.shape, dtype=x.dtype).tolist(),
    "__bool__": lambda x: True,
    "__float__": lambda x: 0.0,
    "__int__": lambda x: 0,
    "cpu": lambda x: torch.zeros(x.shape, dtype=x.dtype),
    "numpy": lambda x: torch.zeros(x.shape, dtype=x.dtype).numpy(),
}


def device_bytes(value: Any) -> int:
    """Bytes of all tensors on the device within arguments or results."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size() if value.device.type == "meta" else 0
    return sum(map(device_bytes, value)) if isinstance(value, list | tuple) else 0


class Count(TorchDispatchMode):
    """Counts the operators of what runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter[str] = collections.Counter()
        self.bytes: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.uploaded, self.flop = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.__name__.split(".")[0]
        if func.overloadpacket in flop_registry:
            self.flop += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        if func in COPIES:
            self._copied(func, args, kwargs, out)
        if name not in VIEWS:
            moved = device_bytes(args) + device_bytes(list(kwargs.values())) + device_bytes(out)
            self.calls[name] += moved > 0
            self.bytes[name] += moved
        return out

    def _copied(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        source = args[0] if func is COPIES[0] else args[1]
        if source.device.type != "cpu" or out.device.type != "meta":
            return
        self.uploaded += source.numel() * source.element_size()
        if not (kwargs.get("non_blocking") or (func is COPIES[1] and len(args) > 2 and args[2])):
            self.waits[f"upload at {place()}"] += 1

    @contextlib.contextmanager
    def read_outs(self) -> Iterator[None]:
        """Within it a value of the device is noted when read, and answered."""
        own = {name: getattr(Tensor, name) for name in READ_OUTS}

        def watched(name: str) -> Any:
            def read(x: Tensor, *args: Any, **kwargs: Any) -> Any:
                if x.device.type != "meta":
                    return own[name](x, *args, **kwargs)
                self.waits[f"{name} at {place()}"] += 1
                return READ_OUTS[name](x)

            return read

        try:
            for name in READ_OUTS:
                setattr(Tensor, name, watched(name))
            yield
        finally:
            for name, method in own.items():
                setattr(Tensor, name, method)


def place() -> str:
    """Where in ganinv the running operator was called."""
    for frame in reversed(traceback.extract_stack()):
        if f"{ROOT}/ganinv/" in frame.filename:
            return f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"
    return "a library"


@contextlib.contextmanager
def meta_as_a_gpu() -> Iterator[None]:
    """torch's own choices by device type, made for meta tensors as for a GPU's."""
    from torch.nn.utils import clip_grad
    from torch.optim import optimizer

    autocast, fused = torch.autocast, optimizer._get_fused_kernels_supported_devices
    foreach = clip_grad._has_foreach_support
    try:
        torch.autocast = lambda device, *args, **kwargs: (  # type: ignore[assignment, misc]
            contextlib.nullcontext() if device == "meta" else autocast(device, *args, **kwargs)
        )
        optimizer._get_fused_kernels_supported_devices = lambda: [*fused(), "meta"]
        clip_grad._has_foreach_support = lambda tensors, device: True
        yield
    finally:
        torch.autocast = autocast  # type: ignore[misc]
        optimizer._get_fused_kernels_supported_devices = fused
        clip_grad._has_foreach_support = foreach


class Alone:
    """What a method asks of its trainer, in a process of its own."""

    strategy, world_size, global_rank = object(), 1, 0


def recipe(name: str) -> DictConfig:
    """The composed config of a method at full size."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = [RECIPES[name], "trainer=dry", "logger=csv"]
        cfg = compose("train", overrides=words, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def on_meta(method: Method) -> Method:
    """A method that takes its steps on the meta device, without a trainer."""
    method = method.to("meta").train()
    optimizers = method.configure_optimizers()
    method.optimizers = lambda *_, **__: optimizers  # type: ignore[assignment, method-assign]
    method.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    method.alone = method.trainer = Alone()  # type: ignore[assignment]
    return method


def counted(name: str) -> tuple[Count, float, int]:
    """What a step costs, its GFLOP, and its images."""
    with tempfile.TemporaryDirectory() as folder:
        cfg, _ = with_random_weights(recipe(name), Path(folder))
        method = build_method(cfg, instantiate(cfg.generator))
    batch = Noise(cfg).batch()
    for part in ("image", "source"):
        if part in batch:
            batch[part] = batch[part].to("meta")
    count = Count()
    with meta_as_a_gpu():
        on_meta(method)
        with Count().read_outs():
            method.training_step(batch, 0)  # makes the states of the optimizers
        method.images_seen = 0
        with count, count.read_outs():
            method.training_step(batch, 0)
    return count, count.flop / 1e9, len(batch["key"])


def main() -> None:
    """Count, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--top", type=int, default=0, help="operators that move most, to print")
    parser.add_argument("--json", type=Path, help="default: nothing is written")
    args = parser.parse_args()
    result = {}
    for name in args.method:
        count, gflop, images = counted(name)
        result[name] = {
            "calls": sum(count.calls.values()),
            "GB": round(sum(count.bytes.values()) / images / 1e9, 1),
            "GFLOP": round(gflop / images),
            "read-outs": sum(count.waits.values()),
            "uploaded MiB": round(count.uploaded / images / 2**20, 3),
        }
        print(f"{name:12}", "  ".join(f"{key} {v}" for key, v in result[name].items()), flush=True)
        for where, times in count.waits.most_common():
            print(f"    waits {times} x: {where}")
        for operator, size in count.bytes.most_common(args.top):
            times = count.calls[operator]
            print(f"    {operator:34} {size / images / 1e9:7.2f} GB  {times:5d} calls")
    if args.json:
        write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
