"""Twenty steps of every method, recorded: what a change of code must not move.

    python -m tests.method.curves        writes tests/method/curves.json anew, and says what moved

The networks are the small ones of `tests/runs.py`, the images a function of their position. All is
computed in float64, so that no rounding, and with it no kind of processor, is seen in the numbers:
Adam and Ranger make much of it. Record anew only where the mathematics was meant to change.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.method.base import Method
from tests.runs import METHODS, composed, overrides, tiny_generator_file

RECORDED = Path(__file__).with_suffix(".json")
STEPS, BATCH = 20, 4
Curves = dict[str, list[float | None]]
RECIPE = {"split": "train", "psi": 0.7, "cutoff": 4, "image_size": (64, 64)}


def image(position: int) -> Tensor:
    """uint8 [3,64,64] of soft blocks, a function of its position."""
    colours = torch.Generator().manual_seed(position)
    blocks = torch.randint(0, 256, (1, 3, 8, 8), generator=colours).float()
    return torch.nn.functional.interpolate(blocks, 64, mode="bilinear")[0].byte()


def batches(synthetic: bool, steps: int = STEPS) -> Iterator[dict[str, Any]]:
    """Batches as a data source yields them."""
    for step in range(steps):
        position = torch.arange(step * BATCH, (step + 1) * BATCH)
        drawn = {"image": torch.stack([image(int(p)) for p in position])}
        rest = {"key": [str(int(p)) for p in position], "position": position}
        yield ({"synthetic": RECIPE} if synthetic else drawn) | rest


class Recorder(pl.Callback):
    """What every step measured, name -> number."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """After each step."""
        self.steps.append({name: float(v) for name, v in pl_module.values.items()})


def trained_steps(
    method: str,
    generator_file: Path,
    data: list[dict[str, Any]],
    *,
    nan_at: int = -1,
    more: Sequence[str] = (),
    prepare: Callable[[Method], None] = lambda built: None,
) -> tuple[Method, list[dict[str, float]]]:
    """The method after these batches, and what every step measured.

    Args:
        method: its name in conf/.
        generator_file: of `tiny_generator_file`.
        data: the batches.
        nan_at: images seen before the step whose images are NaN.
        more: overrides after those of `tests/runs.py`.
        prepare: called on the method before it trains.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cfg = composed([*overrides(method, generator_file, Path("unused")), *more])
        pl.seed_everything(cfg.seed, verbose=False)
        built = build_method(cfg, instantiate(cfg.generator)).double()
        images = built.images

        def doubled(batch: Any) -> Tensor:
            return images(batch).double() * (math.nan if built.images_seen == nan_at else 1)

        built.images = doubled  # type: ignore[method-assign]
        prepare(built)
        torch.set_default_dtype(torch.float64)
        recorder = Recorder()
        pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(built, DataLoader(data, batch_size=None))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    return built, recorder.steps


def curves_of(method: str, generator_file: Path, steps: int = STEPS) -> Curves:
    """Name -> its values over the steps, None where it was not measured."""
    data = list(batches(method == "bdinvert", steps))
    _, measured = trained_steps(method, generator_file, data)
    names = sorted({name for step in measured for name in step})
    return {name: [step.get(name) for step in measured] for name in names}


def main() -> None:
    """Record every method."""
    with tempfile.TemporaryDirectory() as folder:
        file = tiny_generator_file(Path(folder))
        found = {method: curves_of(method, file) for method in METHODS}
    RECORDED.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
