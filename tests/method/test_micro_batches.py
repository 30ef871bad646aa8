"""What micro-batches are equal to, and what they are not: the figures of docs/CLUSTER.md, measured.

python -m tests.method.test_micro_batches        prints it
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.trainer.batch_norm import SyncBatchNorm2d, synchronise
from tests.method.curves import image
from tests.runs import ROOT, composed, overrides, tiny_generator_file


def difference(
    method: str, player: str, frozen_statistics: bool, generator_file: Path, sync: bool = False
) -> float:
    """|g2 - g1| / |g1| of a player's first gradient: two micro-batches of 4 against one of 8; with
    `trainer.sync_batchnorm`, of which one process is a world of its own."""
    cfg = composed(overrides(method, generator_file, Path("unused")))
    torch.manual_seed(0)
    built = build_method(cfg, instantiate(cfg.generator)).double().train()
    if frozen_statistics:
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    if sync:
        for name in built.player_names:
            synchronise(getattr(built, name))
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


@pytest.mark.nightly
def test_synchronised_batch_norm_does_not_mend_micro_batches(assets, one_process_group):
    """It joins ranks; each micro-batch is still normalised by itself."""
    network = torch.nn.Sequential(nn.BatchNorm2d(3))
    synchronise(network)
    assert isinstance(network[0], SyncBatchNorm2d)
    plain = difference("psp", "E", False, assets[0])
    assert difference("psp", "E", False, assets[0], sync=True) == pytest.approx(plain, rel=1e-6)


@pytest.fixture
def one_process_group(tmp_path):
    """A world in which the synchronised layer really meets the others: there is one."""
    dist.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.nightly
def test_the_documents_have_the_measured_figures(assets):
    text = " ".join((ROOT / "docs/CLUSTER.md").read_text().split())
    said = re.search(r"pSp's E ([\d.]+) \((\S+) with fixed batch statistics\), "
                     r"IDInvert's E ([\d.]+), the GAN's D ([\d.]+)", text)  # fmt: skip
    assert said is not None
    cases = (("psp", "E", False), ("psp", "E", True), ("idinvert", "E", False), ("gan", "D", False))
    for case, figure in zip(cases, said.groups(), strict=True):
        measured = difference(*case, assets[0])
        if case[2]:
            assert float(figure) < 1e-12 and measured < 1e-12
        else:
            assert measured == pytest.approx(float(figure), rel=0.1), case


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        file = tiny_generator_file(Path(folder))
        for case in (("psp", "E", False), ("psp", "E", True), ("idinvert", "E", False),
                     ("gan", "D", False)):  # fmt: skip
            print(*case, f"{difference(*case, file):.2g}")
