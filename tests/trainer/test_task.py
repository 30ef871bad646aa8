"""pSp's other tasks, trained, resumed, validated and evaluated on the built-in domain."""

import copy

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from PIL import Image

from evaluate import evaluate
from ganinv.core.errors import ConfigError
from ganinv.dataset import avatars
from ganinv.evaluation.open import load_trained
from ganinv.run.checkpoint import read_checkpoint
from tests.runs import ROOT, differences, overrides, run

TASKS = ["psp_segmentation_avatars64", "psp_super_resolution_avatars64"]


def trained(experiment, assets, folder, *extra):
    run([f"experiment={experiment}", *overrides("psp", *assets), f"run_dir={folder}", *extra])
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("experiment", TASKS)
def test_a_task_is_trained_resumed_and_evaluated(experiment, assets, tmp_path):
    whole = trained(experiment, assets, tmp_path / "whole")
    half = trained(experiment, assets, tmp_path / "half", "trainer.max_kimg=0.012")
    resumed = trained(experiment, assets, tmp_path / "half", f"resume={half}")
    first, second = read_checkpoint(whole), read_checkpoint(resumed)
    assert not differences(first["state_dict"], second["state_dict"])

    grids = sorted((tmp_path / "whole" / "grids").glob("*.png"))
    assert Image.open(grids[-1]).height == 3 * 66 + 2  # what was read, the images, what was made
    method = load_trained(whole).method
    channels = len(avatars.PARTS) if "segmentation" in experiment else 3
    assert method.task.channels == channels == method.E.input_layer[0].in_channels

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = copy.deepcopy(compose("evaluate", overrides=[f"checkpoint={whole}", "pictures=3"]))
    with open_dict(cfg):
        cfg.pop("hydra", None)
    evaluate(cfg)
    (folder,) = (tmp_path / "whole" / "evaluation").iterdir()
    assert Image.open(folder / "grid-encode.png").size == (3 * 66 + 2, 4 * 66 + 2)
    assert (
        "Each figure: input, image, reconstruction, error" in (folder / "report.html").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["task=segmentation", "task.classes=13"], r"encoder.input_nc=3 .*expected 13.*set enco"),
        (["task=sketch"], r"reads grey sources with dataset=avatars64"),
        (["method=restyle_psp", "encoder.input_nc=3"], r"input_nc=3 with the task Image; exp.* 6"),
        (["method=bdinvert", "task=super_resolution"], r"method=bdinvert with the task SuperRes"),
        (["method=bdinvert", "dataset=synthetic", "task=sketch"], r"with dataset=synthetic"),
        (["method=gan", "task=super_resolution"], r"a method that has no encoder"),
    ],
)
def test_what_no_task_can_be(arguments, words, assets, tmp_path):
    with pytest.raises(ConfigError, match=words):
        run([*arguments, "logger=csv", f"dataset.cache={assets[1]}", f"run_dir={tmp_path}/r"]
            if "bdinvert" not in arguments[0] else
            [*arguments, "logger=csv", f"run_dir={tmp_path}/r"])  # fmt: skip
    assert not (tmp_path / "r").exists()
