"""Per-image methods through evaluate.py: ranks, stops and other images change nothing."""

import csv
import json
import math

import pytest
import torch

from ganinv.core.seed import derive_seed
from ganinv.evaluation.measure import Measurement, target_of
from ganinv.inversion.image2stylegan import Image2StyleGAN
from tests.evaluation.test_evaluate import evaluated
from tests.inversion import tiny
from tests.processes import killed_at_a_step
from tests.runs import overrides, run

SHORT = [
    "inversion=[image2stylegan,projector,domain_regularised,noise_maps,pti]",
    "inversion.image2stylegan.start=random",
    *(
        f"inversion.{name}.steps=2"
        for name in ("image2stylegan", "projector", "domain_regularised", "noise_maps", "pti")
    ),
    "inversion.projector.samples=50",
    "inversion.pti.locality_weight=0.1",
    "metric=[distortion]",
]


@pytest.fixture(scope="module")
def checkpoint(assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("per_image") / "run"
    run([*overrides("psp", *assets), f"run_dir={folder}", "trainer.max_kimg=0.004"])
    return folder / "checkpoints" / "last.ckpt"


def table(output):
    """Every number but the time."""
    content = json.loads((output / "metrics.json").read_text())
    for row in content["rows"]:
        del row["seconds_per_image"]
    lines = [line.rsplit(",", 1)[0] for line in (output / "images.csv").read_text().splitlines()]
    return content, lines, sorted(path.name for path in output.iterdir())


def test_seeds_are_functions_of_the_key():
    """Not of the place in the split, nor of the batch."""
    model = tiny.model()
    image = torch.zeros(3, 3, tiny.SIZE, tiny.SIZE, dtype=torch.uint8)

    def seeds(keys, first, seed=5):
        position = torch.arange(first, first + len(keys))
        batch = {"image": image[: len(keys)], "key": list(keys), "position": position}
        return target_of(model.float(), batch, seed).seeds

    assert seeds("abc", 0) == seeds("abc", 100) == [seeds(key, 7)[0] for key in "abc"]
    assert seeds("a", 0) == [derive_seed(5, "inversion", "a")]
    assert len({*seeds("abc", 0), *seeds("abc", 0, seed=6)}) == 6


@pytest.fixture(scope="module")
def alone(checkpoint, tmp_path_factory):
    """In one process."""
    output = tmp_path_factory.mktemp("alone") / "o"
    evaluated(f"checkpoint={checkpoint}", "batch_size=3", *SHORT, f"output={output}")
    return output


@pytest.mark.slow
def test_two_processes_are_one(checkpoint, alone, tmp_path):
    two = ["trainer.devices=2", f"output={tmp_path / 'o'}"]
    evaluated(f"checkpoint={checkpoint}", "batch_size=3", *SHORT, *two)
    assert table(tmp_path / "o") == table(alone)
    for row in table(alone)[0]["rows"]:
        assert row["steps_per_image"] == 2 and len(row["loss"]["median"]) == 2


def test_stopped_and_typed_again_is_uninterrupted(checkpoint, alone, tmp_path, monkeypatch):
    """After three of ten batches, between methods and within them."""
    given = [f"checkpoint={checkpoint}", "batch_size=3", *SHORT, f"output={tmp_path / 'o'}"]
    measure, done = Measurement.measure, []

    def stopping(self, *arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return measure(self, *arguments)

    monkeypatch.setattr(Measurement, "measure", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluated(*given)
    monkeypatch.undo()
    assert not (tmp_path / "o" / "metrics.json").exists()
    evaluated(*given)
    assert table(tmp_path / "o") == table(alone)


def test_killed_within_an_optimisation_and_typed_again_is_uninterrupted(
    checkpoint, alone, tmp_path
):
    """kill -9 at the last step of the projector's second batch: the fourth of ten."""
    given = [f"checkpoint={checkpoint}", "batch_size=3", *SHORT, f"output={tmp_path / 'o'}"]
    killed_at_a_step("evaluate.py", given, tmp_path, module="projector", method="Projector", call=4)
    parts = tmp_path / "o" / ".parts"
    assert sorted(path.stem for path in parts.glob("0*")) == [f"{n:08d}" for n in range(3)]
    evaluated(*given)
    assert table(tmp_path / "o") == table(alone)


def test_other_images_change_an_image_by_rounding_alone(checkpoint, alone, tmp_path):
    evaluated(f"checkpoint={checkpoint}", "batch_size=1", "limit=2", *SHORT,
              f"output={tmp_path / 'o'}")  # fmt: skip

    def rows(folder):
        with open(folder / "images.csv") as file:
            return {(row["inversion"], row["key"]): row for row in csv.DictReader(file)}

    few, all_ = rows(tmp_path / "o"), rows(alone)
    assert len(few) == 10
    for place, row in few.items():
        assert float(row["mse"]) == pytest.approx(float(all_[place]["mse"]), rel=1e-3), place


def test_an_image_without_a_finite_loss_is_told_in_the_table(
    checkpoint, alone, tmp_path, monkeypatch, capsys
):
    losses, first = Image2StyleGAN.losses, []

    def failing(self, target, leaves, known, image, step):
        first.extend(target.key[:1] if not first else [])
        values = losses(self, target, leaves, known, image, step)
        bad = [math.nan if key == first[0] and step == 1 else 0.0 for key in target.key]
        return values | {"mse": values["mse"] + torch.tensor(bad)}

    monkeypatch.setattr(Image2StyleGAN, "losses", failing)
    evaluated(f"checkpoint={checkpoint}", "batch_size=3", *SHORT, f"output={tmp_path / 'o'}")
    said = capsys.readouterr().out
    assert "image2stylegan (1 not finite)" in said
    assert "image2stylegan: 1 of 6 images came to a loss or gradient that is no f" in said
    assert f"kept as they were before: {first[0]}\n" in said
    fine, broken = table(alone), table(tmp_path / "o")
    row = broken[0]["rows"][0]
    assert row["not_finite"] == first and all(row[name] is not None for name in ("mse", "psnr"))
    assert broken[0]["rows"][1:] == fine[0]["rows"][1:]
    differ = [new for new, old in zip(broken[1], fine[1], strict=True) if new != old]
    assert all(line.startswith(f"{first[0]},image2stylegan") for line in differ)
    assert len(differ) == 1


def test_half_precision_optimises_in_float32(checkpoint, tmp_path):
    evaluated(f"checkpoint={checkpoint}", "limit=2", *SHORT, "trainer.precision=bf16-mixed",
              f"output={tmp_path / 'o'}")  # fmt: skip
    for row in json.loads((tmp_path / "o" / "metrics.json").read_text())["rows"]:
        assert row["not_finite"] == [] and row["mse"] is not None, row["inversion"]
