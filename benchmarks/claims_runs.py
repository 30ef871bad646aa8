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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ganinv.run.status import read_state

ROOT = Path(__file__).resolve().parents[1]
ENCODERS_ON, OPTIMISED_ON, CLONED = 512, 48, 16  # test faces

ENCODER = ["trainer.max_kimg=8", "trainer.rate_decay=0", "optimizer.lr=1e-3"]
E4E = ["method=e4e", *ENCODER, "method.progressive_start=2000", "method.progressive_every=400"]
IDINVERT = ["experiment=idinvert_avatars64", *ENCODER]
TRAININGS: dict[str, list[str]] = {
    "psp": ["method=psp", *ENCODER],
    "restyle_psp": ["method=restyle_psp", *ENCODER],
    "e4e": E4E,
    "e4e_without_delta": [*E4E, "loss.delta.weight=0"],
    "e4e_without_critic": [*E4E, "loss.adversarial.weight=0"],
    "e4e_all_layers": ["method=e4e", *ENCODER, "method.progressive_start=null"],
    "idinvert": IDINVERT,
    "plain_encoder": [
        *IDINVERT,
        "dataset=synthetic",
        "dataset.psi=1",
        "dataset.batch_size=8",
        "method.adversarial_weight=0",
    ],
    "bdinvert_8": ["method=bdinvert", "trainer.max_kimg=4"],
    "bdinvert_16": ["method=bdinvert", "encoder.side=16", "trainer.max_kimg=4"],
}

FREE = ["inversion.image2stylegan.start=encode", "inversion.image2stylegan.steps=100",
        "inversion.image2stylegan.lr=0.05"]  # fmt: skip
BASE = ["inversion.bdinvert.start=encode", "inversion.bdinvert.steps=100",
        "inversion.bdinvert.lr=0.05"]  # fmt: skip


@dataclass(frozen=True)
class Evaluated:
    """A call of evaluate.py.

    Args:
        of: the training whose checkpoint is evaluated.
        words: the rest of the command.
        base: the training of the base code, where BDInvert is among the methods.
        limit: test faces.
        glasses: `semantics`, what codes say of them; `change`, what else putting them on changes.
    """

    of: str
    words: tuple[str, ...] = ()
    base: str | None = None
    limit: int = ENCODERS_ON
    glasses: str | None = None


OPTIMISED = ("inversion=[encode,image2stylegan,domain_regularised,pti]", *FREE,
             "inversion.pti.steps=100", "inversion.pti.lr=1e-3")  # fmt: skip
MOVED = ("dataset=avatars64_moved", "dataset.shift=[0,8]", "dataset.angle=15",
         "inversion=[encode,image2stylegan,bdinvert]")  # fmt: skip
ON_DRAWN = ("dataset=avatars64",)  # trained on samples, evaluated on the drawn faces

EVALUATIONS: dict[str, Evaluated] = {  # the longest last
    **{name: Evaluated(name) for name in TRAININGS if not name.startswith(("bdinvert", "plain"))},
    "plain_encoder": Evaluated("plain_encoder", ON_DRAWN),
    "edits_psp": Evaluated("psp", glasses="change"),
    "edits_e4e": Evaluated("e4e", glasses="change"),
    **{
        f"domain_{weight}": Evaluated(
            "idinvert",
            ("inversion=[domain_regularised]",
             f"inversion.domain_regularised.domain_weight={weight}"),
            limit=OPTIMISED_ON,
            glasses="semantics",
        )
        for weight in (0, 2, 20)
    },
    "free": Evaluated("idinvert", ("inversion=[image2stylegan]", *FREE), limit=OPTIMISED_ON,
                      glasses="semantics"),
    "moved": Evaluated("psp", (*MOVED, *FREE, *BASE), "bdinvert_8", OPTIMISED_ON),
    **{
        f"edits_{side}": Evaluated("psp", ("inversion=[bdinvert]", *BASE), f"bdinvert_{side}",
                                   OPTIMISED_ON, glasses="change")
        for side in (8, 16)
    },
    "optimised": Evaluated("psp", OPTIMISED, limit=OPTIMISED_ON),
    "cloned": Evaluated("psp", ("inversion=[clone]", "inversion.clone.steps=100"), limit=CLONED),
}  # fmt: skip

Rows = dict[str, dict[str, dict[str, float]]]  # inversion -> key of an image -> column -> number


class Runs:
    """The folder OUT and what is in it.

    Args:
        out: OUT.
        words: added to every training and evaluation (`trainer.max_kimg=0.1` tries the script).
        cores: so many trainings or evaluations run side by side, each on one thread: threads of
            one process wait for one another, which two processes do not.
    """

    def __init__(self, out: Path, words: Mapping[str, list[str]], cores: int) -> None:
        self.out, self.words, self.cores = out.resolve(), words, cores

    def carry_out_all(self) -> None:
        """Every training, the boundary of glasses, every evaluation."""
        with ThreadPoolExecutor(self.cores) as side_by_side:
            list(side_by_side.map(self.checkpoint, TRAININGS))
            self._glasses("semantics")
            list(side_by_side.map(self.evaluated, EVALUATIONS))

    def checkpoint(self, name: str) -> Path:
        """The last checkpoint of a training, which is carried out if it was not."""
        folder = self.out / "runs" / name
        if read_state(folder).get("state") != "finished":
            words = [*TRAININGS[name], *self.words["train"], f"run_dir={folder}"]
            self._call(name, "train.py", *words, "resume=auto", "logger=csv")
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
            glasses = [] if what.glasses is None else self._glasses(what.glasses)
            words = [*what.words, *base, *glasses, f"limit={what.limit}", *self.words["evaluate"]]
            of, to = f"checkpoint={self.checkpoint(what.of)}", f"output={folder}"
            self._call(f"evaluate_{name}", "evaluate.py", of, *words, to)
        return folder

    def _glasses(self, metric: str) -> list[str]:
        """Words of a metric of glasses, by a boundary that a probe of them has led to."""
        probe, boundary = self.out / "probe.safetensors", self.out / "glasses.safetensors"
        fit = ["-m", "ganinv.cli.main", "fit"]
        if not probe.is_file():
            self._call("probe", *fit, "probe", "--out", str(probe))
        if not boundary.is_file():
            self._call("boundary", *fit, "boundary", "stylegan2_avatars64", "--probe", str(probe),
                       "--attribute", "glasses", "--out", str(boundary))  # fmt: skip
        if metric == "semantics":
            return ["metric=[distortion,lite0,semantics]", f"metric.semantics.boundary={boundary}",
                    "metric.semantics.attribute=glasses"]  # fmt: skip
        return ["metric=[distortion,lite0,change]", "editing=[direction]",
                f"editing.direction.file={boundary}", f"metric.change.probe={probe}",
                "metric.change.attribute=glasses"]  # fmt: skip

    def _call(self, name: str, *words: str) -> None:
        print("$ python", *words, flush=True)
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        with log.open("ab") as file:
            code = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment,
                                  stdout=file, stderr=file).returncode  # fmt: skip
        if code != 0:
            raise SystemExit(f"python {' '.join(words)}\nended with {code}: see {log}")


def read_rows(path: Path) -> Rows:
    """An images.csv."""
    found: Rows = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key, inversion = row.pop("key"), row.pop("inversion")
            numbers = {name: float(value) for name, value in row.items() if value != ""}
            found.setdefault(inversion, {})[key] = numbers
    return found
