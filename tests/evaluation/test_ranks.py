"""evaluate.py as its users start it: alone, two processes, under torchrun, killed and again."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.processes import command_ready, environment, finished, hear_ctrl_c, torchrun
from tests.runs import ROOT, plain_overrides, run

SLOW = """
import runpy, sys, time
from ganinv.evaluation.measure import Measurement
measure = Measurement.measure
Measurement.measure = lambda *given: (time.sleep(1), measure(*given))[1]
sys.argv = sys.argv[1:]
runpy.run_path("evaluate.py", run_name="__main__")
"""  # a batch of rank 0 takes a second, so that a signal finds it at work
METRICS = "metric=[distortion,lite0,fid_lite0]"


@pytest.fixture(scope="module")
def checkpoint(assets, tmp_path_factory):
    """Its dataset has a loading process, which every process that is started starts, too."""
    folder = tmp_path_factory.mktemp("ranks") / "run"
    extra = ["trainer.max_kimg=0.004", "dataset.num_workers=1"]
    run([*plain_overrides("psp", *assets), f"run_dir={folder}", *extra])
    return folder / "checkpoints" / "last.ckpt"


def words(checkpoint, output, *arguments):
    return [f"checkpoint={checkpoint}", f"output={output}", "batch_size=2", METRICS, *arguments]


def start(checkpoint, output, *arguments, launcher=(sys.executable,)):
    return subprocess.Popen(
        [*launcher, "evaluate.py", *words(checkpoint, output, *arguments)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def table(output):
    """Every number but the time, and the names of all files."""
    content = json.loads((output / "metrics.json").read_text())
    for row in content["rows"]:
        del row["seconds_per_image"]
    lines = [line.rsplit(",", 1)[0] for line in (output / "images.csv").read_text().splitlines()]
    return content, lines, sorted(path.name for path in output.iterdir())


@pytest.fixture(scope="module")
def alone(checkpoint, tmp_path_factory):
    output = tmp_path_factory.mktemp("alone") / "o"
    said = command_ready("evaluate.py", words(checkpoint, output), output.parent, 0)
    assert "6 images of test" in said
    return output


@pytest.mark.slow
@pytest.mark.nightly
def test_two_processes_and_torchrun_give_the_table_of_one(checkpoint, alone, tmp_path):
    """FID too, whose features are joined in the order of the images; one rank speaks."""
    launcher = torchrun("--standalone", "--nproc-per-node=2")
    ranks = start(checkpoint, tmp_path / "b", launcher=launcher)
    command = words(checkpoint, tmp_path / "a", "trainer.devices=2")
    for said, output in (
        (command_ready("evaluate.py", command, tmp_path, 0), "a"),
        (finished(ranks), "b"),
    ):
        assert said.count("6 images of test") == 1
        assert table(tmp_path / output) == table(alone)
        picture = (tmp_path / output / "grid-encode.png").read_bytes()
        assert picture == (alone / "grid-encode.png").read_bytes()
    assert [row["fid_lite0"] > 0 for row in table(alone)[0]["rows"]] == [True]


@pytest.mark.slow
def test_stopped_and_typed_again_is_the_uninterrupted_one(checkpoint, alone, tmp_path):
    """Ctrl-C tells what is kept, in a line; SIGKILL cannot; the same command goes on after both."""
    output = tmp_path / "o"
    slow = (sys.executable, "-c", SLOW)
    process = start(checkpoint, output, "batch_size=1", launcher=slow)
    _at_a_part(output, process)
    process.send_signal(signal.SIGINT)
    said = finished(process, 130)
    assert "stopped; finished batches are kept" in said and "KeyboardInterrupt" not in said
    process = start(checkpoint, output, "batch_size=1", launcher=slow)
    _at_a_part(output, process)
    process.kill()
    process.communicate()
    again = words(checkpoint, output, "batch_size=1")
    said = command_ready("evaluate.py", [*again, "batch_size=3"], tmp_path)
    assert "begun with other batch_size; expected the same command" in said
    said = command_ready("evaluate.py", again, tmp_path, 0)
    assert "going on after" in said
    assert table(output)[2] == table(alone)[2]
    said = command_ready("evaluate.py", again, tmp_path)
    assert "which exists; expected" in said and "nothing was overwritten" in said


def _at_a_part(output, process):
    before = len(list(output.glob(".parts/0*.safetensors")))
    until = time.time() + 120
    while len(list(output.glob(".parts/0*.safetensors"))) == before and process.poll() is None:
        assert time.time() < until
        time.sleep(0.02)
