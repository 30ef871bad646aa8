"""Every method's step on torch's meta device: a value read out raises, a CPU tensor that meets one
of the device raises, and so does here a copy to the device that would wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.method.base import Method
from ganinv.trainer.callbacks import StopAndValidate
from tests.method.curves import batches
from tests.runs import METHODS, composed, overrides, plain_overrides


class Alone:
    """What a method asks of its trainer, in a process of its own."""

    strategy, world_size, global_rank = object(), 1, 0


class Uploads(TorchDispatchMode):
    """Counts what is copied from the CPU to the device; refuses a copy that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[0] if func is torch.ops.aten._to_copy.default else args[1]
            if source.device.type == "cpu" and out.device.type == "meta":
                assert kwargs.get("non_blocking") or args[2:] == (True,), "a copy that waits"
                self.bytes += source.numel() * source.element_size()
        return out


@pytest.fixture
def meta_like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Autocast knows no meta device, and torch's fused optimizers refuse it."""
    from torch.optim import optimizer

    autocast, fused = torch.autocast, optimizer._get_fused_kernels_supported_devices
    monkeypatch.setattr(
        torch, "autocast", lambda d, **k: autocast("cpu" if d == "meta" else d, **k)
    )
    monkeypatch.setattr(
        optimizer, "_get_fused_kernels_supported_devices", lambda: [*fused(), "meta"]
    )
    yield


def on_meta(method: str, generator_file: Path, *more: str) -> tuple[Method, Any]:
    """A method on the device, and what its trainer would be. One method shows that the perceptual
    term waits for nothing: it is a third of a step's time here, too."""
    words = overrides if method == "psp" and not more else plain_overrides
    cfg = composed([*words(method, generator_file, Path("unused")), *more])
    built = build_method(cfg, instantiate(cfg.generator)).to("meta").train()
    optimizers = built.configure_optimizers()
    built.optimizers = lambda *_, **__: optimizers  # type: ignore[assignment, method-assign]
    built.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    alone = Alone()
    built.trainer = alone  # type: ignore[assignment]
    return built, alone


def take_a_step(built: Method, synthetic: bool = False) -> Uploads:
    """On a batch whose images are on the device and whose positions are not."""
    (batch,) = batches(synthetic, 1)
    if "image" in batch:
        batch["image"] = torch.empty_like(batch["image"], device="meta")
    with Uploads() as uploads:
        built.training_step(batch, 0)  # type: ignore[arg-type]
    return uploads


@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_nothing_and_uploads_seeds_alone(
    method: str, assets: Any, meta_like_a_gpu: None
) -> None:
    """The first step is the one in which every penalty is due."""
    built, _alone = on_meta(method, assets[0])
    uploads = take_a_step(built, method == "bdinvert")
    assert uploads.bytes <= 8 * 8 * 4  # a few seeds of eight bytes for each of four images
    assert built.images_seen == 4
    assert all(value.device.type == "meta" for value in built.values.values())
    with pytest.raises(RuntimeError, match="meta tensor"):
        built.skipped.read()  # which a log entry does


@pytest.mark.parametrize("task", ["frontalisation", "super_resolution"])
def test_nor_does_a_task_that_changes_images(task: str, assets: Any, meta_like_a_gpu: None) -> None:
    built, _alone = on_meta("psp", assets[0], f"task={task}")
    assert take_a_step(built).bytes <= 8 * 8 * 4


def test_nor_do_ranks_that_ask_one_another_for_signals() -> None:
    """After each step; the numbers that their CPUs know never are on the device."""
    strategy = SimpleNamespace(
        root_device=torch.device("meta"), largest=lambda n: max(n, 15), reduce=lambda x, **_: x
    )
    trainer: Any = SimpleNamespace(world_size=2, strategy=strategy, should_stop=False)
    method = Method(seed=0, micro_batches=1, clip_norm=None, max_nonfinite=1)
    StopAndValidate(max_images=8, val_every=8).on_train_batch_end(trainer, method)
    assert trainer.should_stop and method.interrupted == 15 and trainer.limit_val_batches == 0


def test_a_read_out_and_a_waiting_copy_are_seen(assets: Any, meta_like_a_gpu: None) -> None:
    built, _alone = on_meta("psp", assets[0], "method.noise=const")
    loss = built.loss_E  # type: ignore[attr-defined]

    def reads(*tensors: Any) -> Any:
        losses = loss(*tensors)
        return losses if float(losses["l2"][1].detach().mean()) else {}

    def copies(s: Any, x: Any, position: Any) -> Any:
        return loss(s, x + torch.zeros(1).to(x.device), position)

    for broken, words in ((reads, "meta tensor"), (copies, "a copy that waits")):
        built.loss_E = broken  # type: ignore[attr-defined]
        with pytest.raises((RuntimeError, AssertionError), match=words):
            take_a_step(built)
