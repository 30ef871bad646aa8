"""A command that cannot work is refused before torch is imported, which takes longer than all else
that a user waits for."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.processes import environment

HEAVY = ("torch", "numpy", "scipy", "pytorch_lightning", "wandb")
SCRIPT = """
import os, sys
import ganinv.cli.evaluate, ganinv.cli.main, ganinv.cli.train

for line in sys.stdin.read().splitlines():
    if not (child := os.fork()):
        os.dup2(1, 2)
        words = line.split(" ")
        sys.argv = ["ganinv", *words]
        try:
            print("ended", ganinv.cli.main.main(words))
        except SystemExit as error:
            print("ended", error)
        print("imported", [name for name in {heavy} if name in sys.modules])
        print("next", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
REFUSED = {
    "train method=nope": "method=nope, which is not in conf/method",
    "train optimizer=adam optimizer.betas=[0.9]": "optimizer.betas=[0.9]; expected a list of 2",
    "train resume=FOLDER/gone.ckpt": "resume=FOLDER/gone.ckpt; expected a checkpoint file",
    "train run_dir=FOLDER/full": "run_dir=FOLDER/full, which already holds checkpoints",
    "train encoder.trunk_weights=FOLDER/gone.pth": "gone.pth is not in FOLDER",
    "train generator.weights=gone.pt": "generator.weights=gone.pt, which is no file",
    "train dataset=shards dataset.root=FOLDER/gone dataset.image_size=[64,64]":
        "no folder FOLDER/gone/train; expected a set of shards",
    "evaluate checkpoint=FOLDER/gone.ckpt": "no file FOLDER/gone.ckpt",
    "invert FOLDER/gone.ckpt FOLDER --out FOLDER/new": "no file FOLDER/gone.ckpt",
    "export FOLDER/gone.ckpt --to onnx --out FOLDER/new": "no file FOLDER/gone.ckpt",
    "import FOLDER/gone.pt --out FOLDER/new": "no file FOLDER/gone.pt",
    "edit FOLDER/gone.pt --interpolate 3 --out FOLDER/new": "no codes FOLDER/gone.pt",
    "runs FOLDER/gone": "no folder FOLDER/gone; expected a folder of runs",
    "nope": "invalid choice: 'nope'",
}  # fmt: skip
ANSWERED = {"--help": "ended 0", "invert --help": "ended 0", "runs FOLDER": "no runs in FOLDER"}


def test_nothing_heavy_is_imported_for_a_refusal(tmp_path) -> None:
    (tmp_path / "full" / "checkpoints").mkdir(parents=True)
    expected = {
        command.replace("FOLDER", str(tmp_path)): words.replace("FOLDER", str(tmp_path))
        for command, words in {**REFUSED, **ANSWERED}.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(heavy=HEAVY)],
        input="\n".join(expected),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment() | {"COLUMNS": "1000", "TORCH_HOME": os.fspath(tmp_path)},
    )
    answers = done.stdout.split("next\n")[:-1]
    assert len(answers) == len(expected), done.stdout + done.stderr
    for (command, words), answer in zip(expected.items(), answers, strict=True):
        assert words in answer, (command, answer)
        assert "Traceback" not in answer and "imported []" in answer, (command, answer)
