"""The claims' verdicts, page and runner; the trainings themselves take two hours."""

import json
import re
import sys
from xml.etree import ElementTree

import pytest
import torch

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.run.status import update_state
from tests.runs import ROOT, composed, composed_evaluate

sys.path.insert(0, str(ROOT / "benchmarks"))
import claims  # noqa: E402
import claims_measures as measures  # noqa: E402
from claims_page import Measured, figure, page  # noqa: E402
from claims_runs import EVALUATIONS, TRAININGS, Runs  # noqa: E402


def test_a_verdict_is_where_the_interval_of_the_paired_difference_lies():
    others = [0.1 * i for i in range(20)]
    lower, same = [x - 1 + 0.01 * (i % 2) for i, x in enumerate(others)], others[::-1]
    assert measures.compared("", lower, others).verdict == "holds"
    assert measures.compared("", others, lower).verdict == "does not hold"
    assert measures.compared("", same, others).verdict == "not decidable"
    measured = measures.compared(
        "", lower, others
    )  # paired: far narrower than the spread of images
    assert measured.high - measured.low < 0.02 and measured.preferred == pytest.approx(-0.045)


def test_rows_are_joined_by_the_image_and_a_column_that_grows_is_turned():
    first = {"a": {"1": {"psnr": 20.0}, "2": {"psnr": 30.0}}}
    second = {"b": {"2": {"psnr": 20.0}, "1": {"psnr": 10.0}, "3": {"psnr": 99.0}}}
    measured = measures.between("", "psnr", (first, "a"), (second, "b"), sign=-1)
    assert (measured.preferred, measured.other, measured.count) == (-25, -15, 2)
    assert (measured.low, measured.high) == (-10, -10)


def test_intervals_of_their_own_are_joined_as_of_independent_images():
    a = {"images": 9, "x": 1.0, "x_low": 0.7, "x_high": 1.3}
    b = {"images": 9, "x": 2.0, "x_low": 1.6, "x_high": 2.4}
    measured = measures.apart("", a, b, "x")
    assert (measured.low, measured.high) == pytest.approx((-1.5, -0.5))


def test_pairs_are_told_by_face_and_midpoints_of_equal_codes_have_equal_fids():
    assert measures.per_face(torch.tensor([1.0, 2.0, 6.0]), 3) == [1.5, 3.5, 4.0]  # 01 02 12
    features = torch.randn(10, 3, dtype=torch.float64)  # of the pairs of five faces
    real = torch.randn(40, 3, dtype=torch.float64)
    same = measures.fid_of_midpoints("", features, features, real)
    assert (same.low, same.high, same.count) == (0, 0, 5) and same.preferred == same.other > 0
    far = measures.fid_of_midpoints("", features, features + 10, real)
    assert (
        far.verdict == "holds"
        and measures.fid_of_midpoints("", features + 10, features, real).verdict == "does not hold"
    )


def test_the_page_has_a_row_a_measurement_and_a_picture_a_claim():
    first, second, third = claims.CLAIMS[:3]
    good, bad = Measured("x", 1.0, 2.0, -1.5, -0.5, 8), Measured("y", 2.0, 1.0, 0.5, 1.5, 8)
    text = page({first: [good, bad], second: [good], third: []})
    *rows, last = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[-1] for row in rows] == ["holds |", "does not hold |", "holds |"]
    assert last.startswith(f"| {third.says} | {third.source} | not measured yet |")
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9}
    assert first.says in rows[0] and "-1.5 to -0.5" in rows[0] and rows[1].startswith("|  |  | y |")
    assert re.findall(r"\(claims/(\w+)\.svg\)", text) == [first.name, second.name]
    root = ElementTree.fromstring(figure([good, bad]))
    assert root.tag.endswith("svg") and b"does not hold" in figure([good, bad])


def test_every_training_is_built_and_every_evaluation_composes():
    generator = instantiate(composed([]).generator)
    for name, words in TRAININGS.items():
        cfg = composed(words)
        assert list(cfg.dataset.image_size) == [64, 64], name
        if cfg.method._target_.endswith("BDInvert"):  # whose f must be a map of the generator
            assert "E" in build_method(cfg, generator).player_names, name
    for name, what in EVALUATIONS.items():
        assert what.of in TRAININGS and (what.base is None or what.base in TRAININGS)
        cfg = composed_evaluate("checkpoint=x", *what.words)
        assert ("bdinvert" in cfg.inversion) == (what.base is not None), name


def test_a_finished_run_is_read_and_an_unfinished_one_goes_on(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(Runs, "_call", lambda self, *words: called.append(words))
    runs = Runs(tmp_path, {"train": ["seed=1"], "evaluate": ["batch_size=2"]}, cores=1)
    checkpoint = runs.checkpoint("e4e")
    assert checkpoint == tmp_path / "runs" / "e4e" / "checkpoints" / "last.ckpt"
    assert called[0][:3] == ("e4e", "train.py", "method=e4e")
    assert {"seed=1", "resume=auto"} <= {*called.pop()}
    checkpoint.parent.mkdir(parents=True)
    update_state(tmp_path / "runs" / "e4e", state="interrupted")
    runs.checkpoint("e4e")
    assert called.pop()[1] == "train.py"
    update_state(tmp_path / "runs" / "e4e", state="finished")
    folder = tmp_path / "evaluations" / "e4e"
    with pytest.raises(FileNotFoundError):
        runs.rows("e4e")
    assert called.pop()[:3] == ("evaluate_e4e", "evaluate.py", f"checkpoint={checkpoint}")
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"rows": [{"inversion": "encode", "mse": 1}]}))
    (folder / "images.csv").write_text("key,inversion,mse\na,encode,0.5\n")
    assert runs.rows("e4e") == {"encode": {"a": {"mse": 0.5}}}
    assert runs.result("e4e")["encode"]["mse"] == 1 and not called


def test_everything_is_carried_out_once_and_what_fails_names_its_log(tmp_path, monkeypatch):
    runs = Runs(tmp_path, {"train": [], "evaluate": []}, cores=2)
    done = []

    def finish(self, name, *words):
        done.append(name)
        if "train.py" in words:
            update_state(tmp_path / "runs" / name, state="finished")
        elif "evaluate.py" in words:
            folder = tmp_path / "evaluations" / name.removeprefix("evaluate_")
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text("{}")
        else:
            (tmp_path / words[-1]).touch()

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "_call", finish)
        runs.carry_out_all()
    assert sorted(done) == sorted(
        [*TRAININGS, *(f"evaluate_{name}" for name in EVALUATIONS), "probe", "boundary"]
    )
    with pytest.raises(SystemExit, match=r"no_such.py\nended with 2: see .*psp.log"):
        runs._call("psp", "no_such.py")
    assert "No such file" in (tmp_path / "logs" / "psp.log").read_text()
