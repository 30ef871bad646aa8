"""What micro-batches are equal to, and what they are not: the table of the README, measured.

python -m tests.method.test_micro_batches        prints it
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from tests.method.curves import image
from tests.runs import composed, overrides, tiny_generator_file


def difference(method: str, player: str, frozen_statistics: bool, generator_file: Path) -> float:
    """|g2 - g1| / |g1| of a player's first gradient: two micro-batches of 4 against one of 8."""
    cfg = composed(overrides(method, generator_file, Path("unused")))
    torch.manual_seed(0)
    built = build_method(cfg, instantiate(cfg.generator)).double().train()
    if frozen_statistics:
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    position = torch.arange(8)
    x = torch.stack([image(int(p)) for p in position]).double() / 127.5 - 1
    loss = {"E": getattr(built, "loss_E", None), "D": built.loss_D if method == "gan" else None}
    tensors = (x, x, position) if player == "E" else (x, position)
    built.manual_backward = lambda total: total.backward()  # type: ignore[method-assign]
    gradients = []
    torch.set_default_dtype(torch.float64)
    try:
        for count in (1, 2):
            built.micro_batches = count
            built.accumulate(player, loss[player], *tensors)
            grads = [
                p.grad.flatten() for p in getattr(built, player).parameters() if p.grad is not None
            ]
            gradients.append(torch.cat(grads))
            built.zero_grad(set_to_none=True)
    finally:
        torch.set_default_dtype(torch.float32)
    return float((gradients[1] - gradients[0]).norm() / gradients[0].norm())


def test_two_micro_batches_are_one_batch_but_for_batch_statistics(assets):
    assert difference("psp", "E", True, assets[0]) < 1e-9
    assert difference("psp", "E", False, assets[0]) > 0.05
    assert difference("gan", "D", False, assets[0]) > 1e-4


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        file = tiny_generator_file(Path(folder))
        for case in (("psp", "E", False), ("psp", "E", True), ("idinvert", "E", False),
                     ("gan", "D", False)):  # fmt: skip
            print(*case, f"{difference(*case, file):.2g}")
