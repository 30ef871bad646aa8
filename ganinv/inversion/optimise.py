"""The loop of every per-image method, once: what it does to an image depends on that image alone.

    leaves  name -> [B,...]  what moves       known  name -> what stays: [B,...], or lists of such
    values  name -> [B]      the terms of a step, before their weights

The loss that is descended is the sum over images, never their mean; Adam works element by element;
an image that has converged, or whose loss or gradient is no finite number, leaves the batch with
the leaves it has then. So image i's result is that of a batch of one, up to the rounding of
convolutions over other numbers of images, and depends on its key through `Target.seeds`.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganinv.core.errors import config_error
from ganinv.core.interface import Inversion, Target
from ganinv.core.op.dense import full
from ganinv.inversion.model import Model
from ganinv.inversion.pace import Pace

Leaves = dict[str, Tensor]
Known = dict[str, Any]
NOT_FINITE = "not finite"
log = logging.getLogger(__name__)


@dataclass
class Trace:
    """How the last call went, image by image."""

    key: list[str]
    steps: list[int]  # that each image took
    ended: list[str]  # "all steps", "converged" or "not finite"
    values: dict[str, Tensor] = field(default_factory=dict)  # name -> [T,B], NaN after the end
    seconds: float = 0.0
    shown: str = "total"  # the value that tells how far it is


@dataclass
class Progress:
    """The images that still move."""

    target: Target
    leaves: Leaves
    known: Known
    place: Tensor  # int64 [b], of each in the whole batch


class Optimise(ABC):
    """A method that descends a loss for each image. See the module.

    Args:
        model: E and G; frozen.
        steps: of Adam, at least 1.
        lr: its rate.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    eps: ClassVar[float] = 1e-8
    shown: ClassVar[str] = "total"  # the value that the progress bar and curves show
    shared = False  # whether the images of a batch are to have one result; see `couple`
    changes_weights = False  # whether what is found has changes of G's weights

    def __init__(self, *, model: Model, steps: int, lr: float) -> None:
        name = type(self).__name__
        if steps < 1 or int(steps) != steps:
            raise config_error(
                f"steps={steps} for {name}",
                "a whole number of at least 1",
                "set it; for the start alone, take the method that makes it",
            )
        if not lr > 0:
            raise config_error(f"lr={lr} for {name}", "a number above 0", "set it")
        self.model, self.steps, self.lr = model.freeze(), int(steps), float(lr)
        self.trace: Trace | None = None

    # ------------------------------------------------------------------ what a method says

    @abstractmethod
    def start(self, target: Target) -> tuple[Leaves, Known]:
        """Where each image starts, and what is computed once."""

    @abstractmethod
    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """What the leaves mean."""

    @abstractmethod
    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """name -> [B]; `image` [B,3,H,W] is the rendered one, of the target's size."""

    @abstractmethod
    def weights(self) -> Mapping[str, float]:
        """name -> factor in the total; a value that has none is only watched."""

    def tried(self, target: Target, leaves: Leaves, known: Known, step: int) -> Inversion:
        """What is rendered at a step: `found`, but for methods that add noise."""
        return self.found(leaves, known)

    def rate(self, step: int) -> float:
        """Adam's rate at a step."""
        return self.lr

    def converged(self, values: Mapping[str, Tensor]) -> Tensor | None:
        """bool [B]: which images are good enough as they are; None: there is no such rule."""
        return None

    def couple(self, gradients: list[Tensor]) -> list[Tensor]:
        """What Adam is given of the gradients [B,...]: as they are, so that no image knows of
        another. A method that is `shared` gives every image the same."""
        return gradients

    def project(self, leaves: Leaves) -> None:
        """Bring leaves back to where they may be, in place, after each step; by default nowhere."""
        return

    def check(self, target: Target) -> None:
        """Refuse targets before the first step.

        Raises:
            ConfigError: of a size that G's image cannot be brought to; a mask that fits none.
        """
        check_size(self.model, target)
        check_mask(target)

    # ------------------------------------------------------------------ the loop

    def __call__(self, target: Target) -> Inversion:
        """Optimise B images together; `trace` says afterwards how it went."""
        self.check(target)
        with torch.inference_mode(False), torch.enable_grad():
            return self._optimise(target)

    def _optimise(self, target: Target) -> Inversion:
        count, began = len(target.key), time.perf_counter()
        leaves, known = self.start(target)
        now = Progress(target, _free(leaves), known, torch.arange(count, device=target.x.device))
        before = result = _copy(now.leaves)  # before: each moving image's leaves a step ago
        trace = Trace(
            list(target.key), [self.steps] * count, ["all steps"] * count, shown=self.shown
        )
        adam = self._adam(now.leaves)
        name = type(self).__name__
        pace = Pace(name, steps=self.steps, images=count, shown=self.shown)
        for step in range(self.steps):
            values, total = self._values(now, step)
            values["total"] = total
            _record(trace, values, now.place, step, self.steps)
            finite, good = total.isfinite(), self.converged(values)
            going = finite if good is None else finite & ~good
            grads = _gradients(total, going, now.leaves)
            sound = torch.stack([_all_finite(grad) for grad in grads]).all(0) | ~going
            ended = ~going | ~sound
            if bool(ended.any()):
                _put(result, now.leaves, now.place, ended & finite)
                _put(result, before, now.place, ~finite)
                self._end(trace, now, ended, finite & sound, step)
                rows = (~ended).nonzero().flatten()
                if len(rows) == 0:
                    break
                now, adam = self._without(now, adam, rows)
                grads = [grad[rows] for grad in grads]
            before = _copy(now.leaves)
            for leaf, grad in zip(now.leaves.values(), self.couple(grads), strict=True):
                leaf.grad = grad
            adam.param_groups[0]["lr"] = self.rate(step)
            adam.step()
            with torch.no_grad():
                self.project(now.leaves)
            pace.step(step + 1, values[self.shown].detach())
        else:
            _put(result, now.leaves, now.place, torch.ones_like(now.place, dtype=torch.bool))
        pace.close()
        trace.seconds, self.trace = time.perf_counter() - began, trace
        with torch.no_grad():
            return self.found(result, known)

    def _values(self, now: Progress, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of a step and their weighted sum, [b] each."""
        code = self.tried(now.target, now.leaves, now.known, step)
        image = self.model.render(code, now.target.x.shape[-2:])
        values = self.losses(now.target, now.leaves, now.known, image, step)
        weighted = [factor * values[name] for name, factor in self.weights().items() if factor]
        return values, torch.stack(weighted).sum(0)

    def _end(self, trace: Trace, now: Progress, ended: Tensor, finite: Tensor, step: int) -> None:
        """Write down which images leave the batch, and tell of those that failed."""
        for row in ended.nonzero().flatten().tolist():
            place, well = int(now.place[row]), bool(finite[row])
            trace.steps[place] = step
            trace.ended[place] = "converged" if well else NOT_FINITE
            if not well:
                log.warning(
                    "%s: %s came to a loss or gradient that is no finite number after %d steps; "
                    "what it had found before is kept, the other images go on",
                    now.target.key[row], type(self).__name__, step,
                )  # fmt: skip

    def _without(
        self, now: Progress, adam: torch.optim.Adam, rows: Tensor
    ) -> tuple[Progress, torch.optim.Adam]:
        """The images `rows` alone, with their moments of Adam."""
        kept = _free({name: leaf.detach()[rows] for name, leaf in now.leaves.items()})
        fresh = self._adam(kept)
        for old, new in zip(now.leaves.values(), kept.values(), strict=True):
            state = adam.state.get(old, {})
            if state:
                fresh.state[new] = {k: v[rows] if v.ndim else v for k, v in state.items()}
        target = take_rows(now.target, rows)
        return Progress(target, kept, take_rows(now.known, rows), now.place[rows]), fresh

    def _adam(self, leaves: Leaves) -> torch.optim.Adam:
        return torch.optim.Adam(list(leaves.values()), lr=self.lr, betas=self.betas, eps=self.eps)


def check_targets(methods: Mapping[str, object], model: Model, size: Sequence[int]) -> None:
    """Refuse images of a size that a method, or one that it starts from, cannot work on, before
    there are any.

    Args:
        methods: by name.
        model: E and G of all of them.
        size: (H, W) px of the images that are to come.

    Raises:
        ConfigError: as `Optimise.check`.
    """
    x = torch.zeros(1, 3, *size)
    blank = Target(x=x, s=torch.zeros(1, 3, *model.input_size), key=["every image"], seeds=[0])
    for method in methods.values():
        for one in chain(method):
            if isinstance(one, Optimise):
                one.check(blank)


def chain(method: object) -> Iterator[object]:
    """A method, the one that it starts from, and so on."""
    while method is not None and not isinstance(method, str):
        yield method
        method = next((vars(method)[n] for n in ("begin", "pivot") if n in vars(method)), None)


def failed_keys(method: object) -> list[str]:
    """The images that came to no finite number in a method's last call, or in that of a method
    that it starts from."""
    failed: dict[str, None] = {}
    for one in chain(method):
        trace: Trace | None = getattr(one, "trace", None)
        if trace is not None:
            pairs = zip(trace.key, trace.ended, strict=True)
            failed |= {key: None for key, how in pairs if how == NOT_FINITE}
    return list(failed)


def check_batches(methods: Mapping[str, object], images: int, batch_size: int) -> None:
    """Refuse to cut images that are to share one result.

    Args:
        methods: by name.
        images: how many there are.
        batch_size: how many of them are inverted at once.

    Raises:
        ConfigError: naming the method.
    """
    for name, method in methods.items():
        if images > batch_size and any(getattr(one, "shared", False) for one in chain(method)):
            raise config_error(
                f"{name} with shared=true on {images} images in batches of {batch_size}",
                "one batch: images that share a change of the weights are tuned together",
                f"set the batch size to {images}, take fewer images, or leave shared=true out",
            )


# ------------------------------------------------------------------ rows of a batch


def take_rows(tree: Any, rows: Tensor) -> Any:
    """The images `rows` of anything that holds one entry an image: tensors, lists, Targets."""
    if isinstance(tree, Tensor):
        return tree[rows]
    if isinstance(tree, dict):
        return {name: take_rows(value, rows) for name, value in tree.items()}
    if isinstance(tree, Target):
        parts = {part.name: getattr(tree, part.name) for part in fields(tree)}
        return replace(tree, **{name: take_rows(value, rows) for name, value in parts.items()})
    if isinstance(tree, list | tuple) and tree and all(isinstance(v, Tensor) for v in tree):
        return [value[rows] for value in tree]
    if isinstance(tree, list | tuple) and tree:
        return [tree[row] for row in rows.tolist()]
    return tree


def _put(result: Leaves, leaves: Leaves, place: Tensor, which: Tensor) -> None:
    """Into the whole batch's result, the leaves of the images `which`."""
    for name, leaf in leaves.items():
        result[name][place[which]] = leaf.detach()[which]


def _copy(leaves: Leaves) -> Leaves:
    return {name: leaf.detach().clone() for name, leaf in leaves.items()}


def _free(leaves: Leaves) -> Leaves:
    """The same values as leaves of the graph, in float32 at least: Adam's steps are too small for
    the 8 bits of a bfloat16 that an encoder under autocast gives."""
    return {name: full(leaf.detach()).clone().requires_grad_() for name, leaf in leaves.items()}


def _gradients(total: Tensor, going: Tensor, leaves: Leaves) -> list[Tensor]:
    """Of the sum over the images that go on; the others' are of no interest."""
    found = torch.autograd.grad(
        total[going].sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return list(found)


def _all_finite(grad: Tensor) -> Tensor:
    return grad.reshape(len(grad), -1).isfinite().all(1)


def _record(trace: Trace, values: Mapping[str, Tensor], place: Tensor, step: int, of: int) -> None:
    for name, value in values.items():
        if name not in trace.values:
            trace.values[name] = value.new_full((of, len(trace.key)), float("nan"))
        trace.values[name][step, place] = value.detach()


# ------------------------------------------------------------------ refusals


def check_size(model: Model, target: Target) -> None:
    """Refuse images that G's square image is not brought down to (`pool_and_crop`).

    Raises:
        ConfigError: naming both sizes.
    """
    height, width = target.x.shape[-2:]
    side, of_g = max(height, width), model.G.resolution
    if side > of_g or of_g % side or height != width and (height, width) != model.input_size:
        raise config_error(
            f"images of {height} x {width} px for a generator of {of_g} x {of_g} px",
            f"square images whose side divides {of_g} px, or those that the encoder reads "
            f"({model.input_size[0]} x {model.input_size[1]} px)",
            "align and resize them first (ganinv shard SOURCE --size does the latter)",
        )


def check_mask(target: Target) -> None:
    """Refuse masks of another size, of other values, or that leave nothing of an image.

    Raises:
        ConfigError: naming the image.
    """
    if (mask := target.mask) is None:
        return
    expected = (len(target.x), 1, *target.x.shape[-2:])
    if tuple(mask.shape) != expected:
        raise config_error(
            f"a mask of shape {tuple(mask.shape)}",
            f"{list(expected)}, one for each image and of its size",
            "give each image a mask of its own size",
        )
    lowest, highest = mask.flatten(1).amin(1), mask.flatten(1).amax(1)
    for key, low, high in zip(target.key, lowest.tolist(), highest.tolist(), strict=True):
        if not (low >= 0 and 0 < high <= 1):
            raise config_error(
                f"the mask of {key} with values from {low:g} to {high:g}",
                "0 where the image does not count, 1 where it does, and some pixels that do",
                "correct that mask",
            )
