"""Three ranks that average gradients of graphs which differ: what `test_reduction.py` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ganinv.trainer.reduction import Reduction

WORLD, LAYERS, SIDE = 3, 5, 12
BUCKET = 2 * 4 * (SIDE * SIDE + SIDE)  # bytes: about two layers
STEPS: dict[str, list[set[int]]] = {  # rank -> layers that its graph leaves out
    "first": [set(), set(), set()],
    "same": [set(), set(), set()],
    "each another": [{4}, {0}, {2}],
    "nobody one": [{1}, {1}, {1}],
    "nobody one again": [{1}, {1}, {1}],
    "one rank one": [{1}, set(), {1}],
    "a whole bucket": [{3, 4}, {3, 4}, {3, 4}],
    "a whole bucket again": [{3, 4}, {3, 4}, {3, 4}],
    "a whole bucket back": [set(), {3}, {4}],
}


def network() -> nn.ModuleList:
    torch.manual_seed(1)
    layers = nn.ModuleList(nn.Linear(SIDE, SIDE) for _ in range(LAYERS))
    layers[2].weight.data = layers[2].weight.data.T  # laid out otherwise, as channels_last is
    return layers


def loss_of(layers: nn.ModuleList, x: Tensor, left_out: set[int]) -> Tensor:
    for i, layer in enumerate(layers):
        x = x if i in left_out else layer(x).tanh()
    return x.square().sum()


def gradients(layers: nn.ModuleList) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in layers.parameters()]


def averaged(
    reduction: Reduction | None, layers: nn.ModuleList, parts: list[Tensor], left_out: set[int]
) -> list[Tensor | None]:
    """Gradients of two micro-batches; None: of this rank alone."""
    parameters = list(layers.parameters())
    layers.zero_grad()
    loss_of(layers, parts[0], left_out).backward()
    if reduction is None:
        loss_of(layers, parts[1], left_out).backward()
        return gradients(layers)
    with reduction.during_backward("loss", parameters):
        loss_of(layers, parts[1], left_out).backward()
    reduction.finish(parameters)
    return gradients(layers)


@contextmanager
def recorded(layers: nn.ModuleList) -> Iterator[list[Any]]:
    """What happens, in order: parameters that get a gradient, buckets that leave."""
    events: list[Any] = []
    all_reduce = dist.all_reduce
    hooks = [
        p.register_post_accumulate_grad_hook(lambda _, i=i: events.append(i))
        for i, p in enumerate(layers.parameters())
    ]

    def watched(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("async_op"):
            events.append(f"{len(tensor)} {tensor.dtype}")
        return all_reduce(tensor, *args, **kwargs)

    dist.all_reduce = watched
    yield events
    dist.all_reduce = all_reduce
    for hook in hooks:
        hook.remove()


def work(rank: int, folder: Path) -> None:
    """On each rank: every step by a reduction that goes on and by one that knows nothing."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    own, compressed = (
        Reduction(bucket_bytes=BUCKET, compression=kind, group=dist.new_group(), cpus=None)
        for kind in (None, "bf16")
    )
    found: dict[str, Any] = {}
    for number, (name, left_out) in enumerate(STEPS.items()):
        layers, numbers = network(), torch.Generator().manual_seed(10 * number + rank)
        parts = [torch.randn(4, SIDE, generator=numbers) for _ in range(2)]
        mine = left_out[rank]
        sent = own.bytes_sent
        with recorded(layers) as events:
            goes_on = averaged(own, layers, parts, mine)
        given = [p for p in layers.parameters() if p.grad is not None]
        laid_out = all(p.grad.stride() == p.stride() for p in given)  # type: ignore[union-attr]
        fresh = Reduction(bucket_bytes=BUCKET, compression=None, group=own.group, cpus=None)
        found[name] = {
            "events": events,
            "bytes": own.bytes_sent - sent,
            "goes on": goes_on,
            "fresh": averaged(fresh, layers, parts, mine),
            "bf16": averaged(compressed, layers, parts, mine),
            "mine": averaged(None, layers, parts, mine),
            "laid out": laid_out,
        }
    found["bytes"] = own.bytes_sent, compressed.bytes_sent
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
