"""The speedrun's arms and table; the arms themselves take half an hour."""

import json
import sys

import pytest

from tests.runs import ROOT, composed

sys.path.insert(0, str(ROOT / "benchmarks"))
import speedrun  # noqa: E402


@pytest.mark.parametrize("arm", speedrun.ARMS)
def test_every_arm_differs_from_the_default_run_in_every_word_it_has(arm):
    default = composed([])
    for word in speedrun.ARMS[arm]:
        changed = composed([word])
        group, _, key = word.partition("=")[0].partition(".")
        assert changed[group][key] != default[group][key], word


def test_an_arm_is_trained_once_and_told_beside_0_1_0(tmp_path, monkeypatch):
    called = []

    def call(*words):
        called.append(words)
        folder = tmp_path / "now_3" / ("run" if words[0] == "train.py" else "evaluation")
        folder.mkdir(parents=True)
        if words[0] == "train.py":
            lines = "kimg,speed/images_per_sec,val/l2\n0.3,10,\n0.6,30,\n0.9,12,\n1,,0.1\n"
            (folder / "metrics.csv").write_text(lines)
        else:
            row = {"inversion": "encode", "lite0": 1.94, "mse": 0.05}
            (folder / "metrics.json").write_text(json.dumps({"rows": [row]}))
        return 50.0

    monkeypatch.setattr(speedrun, "call", call)
    row = speedrun.measured("now", 3, tmp_path)
    assert row == speedrun.measured("now", 3, tmp_path)
    assert [words[0] for words in called] == ["train.py", "evaluate.py"] and "seed=3" in called[0]
    assert (row["kimg"], row["images_per_second"], row["seconds"]) == (1.0, 12.0, 50.0)
    first = row | {"arm": "0.1.0", "seconds": 200.0, "lite0": 1.96}
    told = speedrun.table([row, first]).splitlines()
    assert told[1].split()[-2:] == ["yes", "0.25"] and told[2].split()[-2:] == ["no", "1.00"]
