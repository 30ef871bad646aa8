"""What the claims rest on: trainings and evaluations on the built-in domain, each done once.

A training is `python train.py`, an evaluation `python evaluate.py`, with the words below, in a
folder of its own in OUT; one that is finished is read, one that was stopped goes on. All trainings
have seed 0. Sizes are for two hours on two cores.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ganinv.run.status import read_state

ROOT = Path(__file__).resolve().parents[1]
ENCODERS_ON, OPTIMISED_ON = 512, 64  # test faces

TRAININGS: dict[str, list[str]] = {
    "psp": ["method=psp"],
    "psp_8kimg": ["method=psp", "trainer.max_kimg=8"],
    "restyle_psp": ["method=restyle_psp"],  # 8 kimg
    "e4e": ["method=e4e"],
    "e4e_without_delta": ["method=e4e", "loss.delta.weight=0"],
    "e4e_without_critic": ["method=e4e", "loss.adversarial.weight=0"],
    "e4e_all_layers": ["method=e4e", "method.progressive_start=null"],
    "idinvert": ["experiment=idinvert_avatars64", "trainer.max_kimg=8"],
    "plain_encoder": [
        "experiment=idinvert_avatars64",
        "dataset=synthetic",
        "method.adversarial_weight=0",
        "trainer.max_kimg=8",
    ],
    "bdinvert_8": ["method=bdinvert", "trainer.max_kimg=4"],
    "bdinvert_16": ["method=bdinvert", "encoder.side=16", "trainer.max_kimg=4"],
}  # fmt: skip

FREE = ["inversion.image2stylegan.start=encode", "inversion.image2stylegan.steps=100",
        "inversion.image2stylegan.lr=0.05"]  # fmt: skip
BASE_8 = ["inversion.bdinvert.start=encode", "inversion.bdinvert.steps=100",
          "inversion.bdinvert.lr=0.05"]  # fmt: skip


@dataclass(frozen=True)
class Evaluated:
    """A call of evaluate.py.

    Args:
        of: the training whose checkpoint is evaluated.
        words: the rest of the command.
        base: the training of the base code, where BDInvert is among the methods.
        limit: test faces.
        edits: whether glasses are put on, and what else that changes is measured.
    """

    of: str
    words: tuple[str, ...] = ()
    base: str | None = None
    limit: int = ENCODERS_ON
    edits: bool = False


TUNED = "inversion=[encode,image2stylegan,domain_regularised,pti,clone]"
TUNING = ("inversion.pti.steps=100", "inversion.pti.lr=1e-3", "inversion.clone.steps=100")
MOVED = ("dataset=avatars64_moved", "dataset.shift=[0,8]", "dataset.angle=15",
         "inversion=[encode,image2stylegan,bdinvert]")  # fmt: skip
ON_DRAWN = ("dataset=avatars64",)  # trained on samples, evaluated on the drawn faces

EVALUATIONS: dict[str, Evaluated] = {
    **{name: Evaluated(name) for name in TRAININGS if not name.startswith(("bdinvert", "plain"))},
    "plain_encoder": Evaluated("plain_encoder", ON_DRAWN),
    "tuned": Evaluated("psp", (TUNED, *FREE, *TUNING), limit=OPTIMISED_ON),
    **{
        f"domain_{weight}": Evaluated(
            "idinvert",
            ("inversion=[encode,domain_regularised]",
             f"inversion.domain_regularised.domain_weight={weight}"),
            limit=OPTIMISED_ON,
        )
        for weight in (0, 2, 20)
    },
    "free": Evaluated("idinvert", ("inversion=[image2stylegan]", *FREE), limit=OPTIMISED_ON),
    "moved_8": Evaluated("psp", (*MOVED, *FREE, *BASE_8), "bdinvert_8", OPTIMISED_ON),
    "moved_16": Evaluated("psp", ("dataset=avatars64_moved", "dataset.shift=[0,8]",
                                  "dataset.angle=15", "inversion=[bdinvert]", *BASE_8),
                          "bdinvert_16", OPTIMISED_ON),
    "edits_psp": Evaluated("psp", edits=True),
    "edits_e4e": Evaluated("e4e", edits=True),
    "edits_8": Evaluated("psp", ("inversion=[bdinvert]", *BASE_8), "bdinvert_8", OPTIMISED_ON,
                         edits=True),
    "edits_16": Evaluated("psp", ("inversion=[bdinvert]", *BASE_8), "bdinvert_16", OPTIMISED_ON,
                          edits=True),
    "still_8": Evaluated("psp", ("inversion=[bdinvert]", *BASE_8), "bdinvert_8", OPTIMISED_ON),
    "still_16": Evaluated("psp", ("inversion=[bdinvert]", *BASE_8), "bdinvert_16", OPTIMISED_ON),
}  # fmt: skip

Rows = dict[str, dict[str, dict[str, float]]]  # inversion -> key of an image -> column -> number


class Runs:
    """The folder OUT and what is in it.

    Args:
        out: OUT.
        words: added to every training and evaluation (`trainer.max_kimg=0.1` tries the script).
    """

    def __init__(self, out: Path, words: Mapping[str, list[str]]) -> None:
        self.out, self.words = out.resolve(), words

    def checkpoint(self, name: str) -> Path:
        """The last checkpoint of a training, which is carried out if it was not."""
        folder = self.out / "runs" / name
        if read_state(folder).get("state") != "finished":
            self._call("train.py", *TRAININGS[name], *self.words["train"], f"run_dir={folder}",
                       "resume=auto", "logger=csv")  # fmt: skip
        return folder / "checkpoints" / "last.ckpt"

    def rows(self, name: str) -> Rows:
        """An evaluation's images.csv."""
        return read_rows(self.evaluated(name) / "images.csv")

    def result(self, name: str) -> dict[str, dict[str, float]]:
        """An evaluation's metrics.json: inversion -> column -> number."""
        rows = json.loads((self.evaluated(name) / "metrics.json").read_text())["rows"]
        return {row["inversion"]: row for row in rows}

    def evaluated(self, name: str) -> Path:
        """The folder of an evaluation, which is carried out if it was not."""
        what, folder = EVALUATIONS[name], self.out / "evaluations" / name
        if not (folder / "metrics.json").is_file():
            base = [] if what.base is None else [
                f"inversion.bdinvert.base_code={self.checkpoint(what.base)}"]  # fmt: skip
            edits = self._edits() if what.edits else []
            words = [*what.words, *base, *edits, f"limit={what.limit}", *self.words["evaluate"]]
            checkpoint = self.checkpoint(what.of)
            self._call("evaluate.py", f"checkpoint={checkpoint}", *words, f"output={folder}")
        return folder

    def _edits(self) -> list[str]:
        """Words that put glasses on, along a boundary that a probe of glasses has led to."""
        probe, boundary = self.out / "probe.safetensors", self.out / "glasses.safetensors"
        fit = ["-m", "ganinv.cli.main", "fit"]
        if not probe.is_file():
            self._call(*fit, "probe", "--out", str(probe))
        if not boundary.is_file():
            self._call(*fit, "boundary", "stylegan2_avatars64", "--probe", str(probe),
                       "--attribute", "glasses", "--out", str(boundary))  # fmt: skip
        return ["editing=[direction]", f"editing.direction.file={boundary}", "metric=[change]",
                f"metric.change.probe={probe}", "metric.change.attribute=glasses"]  # fmt: skip

    def _call(self, script: str, *words: str) -> None:
        print("$ python", script, *words, flush=True)
        environment = os.environ | {"WANDB_MODE": "offline"}
        subprocess.run([sys.executable, script, *words], cwd=ROOT, check=True, env=environment)


def read_rows(path: Path) -> Rows:
    """An images.csv."""
    found: Rows = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key, inversion = row.pop("key"), row.pop("inversion")
            numbers = {name: float(value) for name, value in row.items() if value != ""}
            found.setdefault(inversion, {})[key] = numbers
    return found
