"""docs/ADDING.md is followed to the letter in a copy of the project, which then trains."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganinv.core.safe.io import write_safetensors
from tests.house.tree import ROOT

WEIGHTS = "blocks.safetensors"
GUIDE = ROOT / "docs" / "ADDING.md"
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.M | re.S)
LISTED = re.compile(r"`ganinv/config/allowed\.py`: `(\w+)` in the group `(\w+)`")
NEW = [
    "method=steady",
    "encoder=tiny",
    "loss=edge",
    "generator=blocks",
    f"generator.weights={WEIGHTS}",
]
SMALL = [
    "logger=csv",
    "dataset.num_train=20",
    "dataset.num_val=6",
    "dataset.num_test=6",
    "dataset.batch_size=4",
    "trainer.max_kimg=0.008",
    "trainer.val_every_kimg=0.008",
    "trainer.save_every_kimg=0.008",
    "optimizer.lr=1e-3",
    "run_dir=run",
]


def files() -> dict[str, str]:
    """Path -> content, as the guide has them."""
    return dict(BLOCK.findall(GUIDE.read_text()))


def python(folder: Path, *arguments: str) -> str:
    """A command in the copy; its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with everything that the guide adds."""
    folder = tmp_path_factory.mktemp("added")
    for name in ("ganinv", "conf", "train.py", "evaluate.py"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for name, text in files().items():
        path = folder / name
        assert path.parent.is_dir() and not path.exists(), f"{name} is no new file of a room"
        path.write_text(text)
    allowed = folder / "ganinv" / "config" / "allowed.py"
    modules = {
        symbol: name.removesuffix(".py").replace("/", ".")
        for name, text in files().items()
        for symbol in re.findall(r"^(?:class|def) (\w+)", text, re.M)
    }
    lines = [
        f"from {modules[symbol]} import {symbol}\nALLOWED[{group!r}] |= _named(({symbol},))\n"
        for symbol, group in LISTED.findall(GUIDE.read_text())
    ]
    allowed.write_text(allowed.read_text() + "\n" + "".join(lines))
    torch.manual_seed(0)
    state = {"synthesis.paint.weight": torch.randn(3, 16), "w_avg": torch.zeros(16)}
    write_safetensors(folder / WEIGHTS, state, {})
    return folder


def test_each_takes_at_most_three_files() -> None:
    sections = re.split(r"^## ", GUIDE.read_text(), flags=re.M)[1:]
    assert [s.splitlines()[0] for s in sections] == [
        "A loss", "An encoder", "A method", "An inversion", "A generator"
    ]  # fmt: skip
    for section in sections:
        count = len(BLOCK.findall(section)) + bool(LISTED.search(section))
        assert 2 <= count <= 3, section.splitlines()[0]


def test_a_project_that_follows_the_guide_trains_and_evaluates(copy: Path) -> None:
    said = python(copy, "train.py", *NEW, *SMALL)
    assert "Done: 0.01 kimg" in said
    rows = (copy / "run" / "metrics.csv").read_text()
    assert "edge" in rows.splitlines()[0]
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    table = python(copy, "evaluate.py", checkpoint, "inversion=[encode,average]", "limit=6",
                   "metric=[distortion]")  # fmt: skip
    assert "encode" in table and "average" in table
