"""What torch's compiler would make of the parts of a step that a run compiles, by its own metrics.

    python benchmarks/inductor.py [--method psp] [--part "G's synthesis"] [--json FILE]

    kernels   torch._inductor.metrics.generated_kernel_count, and calls of libraries beside them
    GB        num_bytes_accessed: what the scheduled kernels read and write, an image

Forward and backward pass, two images at full size, float32, code for a CPU: it is written, but
neither built nor run, so that no compiler and no large memory is needed. The last column is what
`cost.py` counts for the same part run as it is, on torch's meta device.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cost import RECIPES, Alone, Count, meta_as_a_gpu, recipe
from torch import Tensor

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.core.safe.io import write_atomic
from ganinv.generator.per_image import stored_maps
from ganinv.method.base import Method
from ganinv.trainer.compile import BACKWARD, parts_of
from ganinv.trainer.dry import with_random_weights

IMAGES = 2


class NotRun(Exception):
    """Raised where compiled code would be built."""


def built(name: str) -> Method:
    """A method at full size with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        cfg, _ = with_random_weights(recipe(name), Path(folder))
        method = build_method(cfg, instantiate(cfg.generator)).train()
    method.image_size = tuple(cfg.dataset.image_size)  # type: ignore[assignment]
    method.trainer = Alone()  # type: ignore[assignment]
    return method


def calls_of(method: Any, optimizers: list[Any], device: str) -> Iterator[tuple[Any, Any]]:
    """Each compiled part with what runs it, forward and backward, as a step does."""
    method = method.to(device)

    def images(grad: bool) -> Tensor:
        return torch.empty(IMAGES, 3, *method.image_size, device=device, requires_grad=grad)

    def synthesise() -> None:
        own = stored_maps(method.G.synthesis)
        maps = {k: torch.empty(IMAGES, 1, *v.shape, device=device) for k, v in own.items()}
        wp = torch.empty(IMAGES, method.G.num_ws, method.G.w_dim, device=device, requires_grad=True)
        method.G.synthesis(wp, noise=maps).sum().backward()  # drawn before, whoever runs it

    for part in parts_of(method, optimizers):
        name, owner, *_ = part
        if name == "G's synthesis":
            yield part, synthesise
        elif name.startswith("loss."):
            yield part, lambda owner=owner: owner(images(True), images(False)).sum().backward()
        else:
            parameters = [p for group in owner.param_groups for p in group["params"]]
            for p in parameters:
                p.grad = torch.empty_like(p)
            owner.found_inf = torch.zeros((), device=device)
            yield part, owner.step


@contextmanager
def only_written() -> Iterator[list[int]]:
    """Within it code is written and not built, and running it raises `NotRun`; the calls of
    libraries in each graph."""
    from torch._functorch import config as backward
    from torch._inductor import compile_fx, config
    from torch._inductor.graph import GraphLowering
    from torch._inductor.scheduler import ExternKernelSchedulerNode

    calls: list[int] = []

    class Module:
        @staticmethod
        def call(*_: Any) -> Any:
            raise NotRun

    def written(graph: Any) -> Any:
        graph.codegen()
        nodes = graph.scheduler.nodes
        calls.append(sum(isinstance(node, ExternKernelSchedulerNode) for node in nodes))
        return Module

    with (
        mock.patch.object(GraphLowering, "compile_to_module", written),
        mock.patch.object(compile_fx, "inductor_metrics_log", mock.Mock()),  # it counts when asked
        config.patch(fx_graph_cache=False, fx_graph_remote_cache=False),
        backward.patch(**BACKWARD, enable_autograd_cache=False),
    ):
        yield calls


def compiled_counts(part: Any, run: Callable[[], Any]) -> dict[str, Any]:
    """Of one part, as inductor counts."""
    from torch._inductor import metrics

    _, owner, attribute, function = part
    torch.compiler.reset()
    metrics.reset()
    setattr(owner, attribute, torch.compile(function, fullgraph=True, dynamic=False))
    start = time.perf_counter()
    with only_written() as library:
        try:
            run()
        except NotRun:
            pass
        finally:
            delattr(owner, attribute)
    return {
        "graphs": len(library),
        "kernels": metrics.generated_kernel_count,
        "library calls": sum(library),
        "GB": round(metrics.num_bytes_accessed / IMAGES / 1e9, 2),
        "seconds": round(time.perf_counter() - start),
    }


def main() -> None:
    """Count, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=RECIPES, default="psp")
    parser.add_argument("--part", help="only this one")
    parser.add_argument("--json", type=Path, help="default: nothing is written")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    method = built(args.method)
    for part, run in calls_of(method, method.configure_optimizers(), "cpu"):
        if args.part in (None, part[0]):
            found[part[0]] = compiled_counts(part, run)
            print(f"{part[0]:22}", found[part[0]], flush=True)
    with meta_as_a_gpu():
        method = method.to("meta")
        for part, run in calls_of(method, method.configure_optimizers(), "meta"):
            if part[0] in found:
                with Count() as count, count.read_outs():
                    run()
                found[part[0]] |= {
                    "eager calls": sum(count.calls.values()),
                    "eager GB": round(sum(count.bytes.values()) / IMAGES / 1e9, 2),
                }
                print(f"{part[0]:22}", found[part[0]], flush=True)
    if args.json:
        write_atomic(args.json, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
