"""The command line: misspelled names and unquoted values, as a user sees them."""

from __future__ import annotations

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ganinv.config.check import check_config
from ganinv.config.command import check_loggers, check_typed, options_first, quoted
from ganinv.core.errors import ConfigError
from tests.house.tree import groups, names
from tests.processes import command_ready
from tests.runs import ROOT, composed

ODD = (
    "/my faces",
    "/a=b",
    "/a,b",
    "/a(b",
    "/a)b",
    "/a{b",
    "/a[b",
    "it's",
    'a"b',
    "a\\b",
    "a:b c",
    "a$HOME b",
)


def said(folder, *words: str, entry: str = "train.py") -> str:
    """What a command that must fail writes to the screen."""
    text = command_ready(entry, list(words), folder)
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["experiment=e4e_ffhq102"], "experiment=e4e_ffhq102, which is not in conf/experiment; "
         "expected one of e4e_ffhq1024"),
        (["trainer.max_kmig=1"], "trainer.max_kmig, which is no key of the config; expected one of "
         "trainer.max_kimg"),
        (["methd=e4e"], "methd, which is no key of the config; expected one of method"),
        (["run_dir=/my(faces"], "write \"run_dir='/my(faces'\""),
        (["encoder=null"], "encoder=null; expected a choice of conf/encoder. To fix: name one"),
        (["loss=psq"], "loss=psq, which is not in conf/loss; expected one of psp"),
        (["encoder=pspp", "--cfg", "job"], "encoder=pspp, which is not in conf/encoder; expected"),
    ],
)  # fmt: skip
def test_a_command_that_does_not_compose(words, expected, tmp_path):
    text = said(tmp_path, *words)
    assert expected in text, text
    assert len(text.strip().splitlines()) == 1, text


def test_the_same_of_an_evaluation(tmp_path):
    text = said(tmp_path, "checkpoint=a.ckpt", "dataset=fffhq256", entry="evaluate.py")
    assert "dataset=fffhq256, which is not in conf/dataset; expected one of ffhq256" in text
    text = said(tmp_path, "checkpoint=a.ckpt", "metric=[distorsion]", entry="evaluate.py")
    assert "metric=distorsion, which is not in conf/metric; expected one of distortion" in text


@pytest.mark.parametrize("value", ODD)
def test_the_form_that_is_advised_works(value):
    """Through a shell and Hydra's parser, back to the very text."""
    shell = subprocess.run(
        ["bash", "-c", f"printf %s {quoted('dataset.root', value)}"], capture_output=True, text=True
    )
    override = OverridesParser.create().parse_override(shell.stdout)
    assert (override.key_or_group, override.value()) == ("dataset.root", value)


ADAM = "_target_: torch.optim.AdamW\n_partial_: true\nlr: 1.0e-4\n"
GROUPS = [g.name for g in groups() if g.name not in ("backbone", "metric", "inversion")]


@pytest.mark.parametrize("group", GROUPS)
def test_no_misspelled_name_is_left_out(group):
    wrong = f"{names(group)[0]}x"
    with pytest.raises(Exception, match=wrong):
        check_config(composed([f"{group}={wrong}"]))


@pytest.mark.parametrize("group", ["encoder", "loss", "discriminator"])
def test_a_name_that_follows_the_method_may_be_missing_but_not_be_typed(group):
    name = "gan" if group != "discriminator" else "psp"
    with pytest.raises(ConfigError, match=f"{group}={name}, which is not in conf/{group}"):
        check_config(composed([f"method={name}", f"{group}={name}"]))


def test_a_config_that_is_only_printed_names_what_is_there(tmp_path, monkeypatch):
    """--cfg runs nothing of ours: what was typed is compared with the folders."""
    monkeypatch.setattr("sys.argv", [str(ROOT / "train.py")])
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("{}")
    for option in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"]):
        check_typed(["loss=mine", *option, "--cfg=job", "method=e4e", "encoder=psp_w"])
    check_typed(["loss=mine", "--cfg", "job", "hydra.searchpath=[file:///mine]"])
    check_typed(["loss=mine", "loss.l2.weight=3"])  # of a run, which looks itself
    for option in (["-c", "job"], ["--cfg=hydra"], ["--cfg", "all", "-cd", "elsewhere"]):
        with pytest.raises(ConfigError, match="loss=mine, which is not in conf/loss"):
            check_typed(["loss=mine", *option])


def test_options_may_stand_between_overrides():
    """Hydra refuses it; a rank's command has Lightning's overrides at its end."""
    words = ["a=1", "--config-dir", "own", "b=2", "-m", "--cfg=job", "--info", "c=3", "~d"]
    first = ["--config-dir", "own", "-m", "--cfg=job", "--info", "a=1", "b=2", "c=3", "~d"]
    assert options_first(words) == first
    assert options_first(["e=1", "--info", "config", "-cd"]) == ["--info", "config", "-cd", "e=1"]


def test_a_list_of_loggers_names_the_file_that_has_both():
    check_loggers(["logger=wandb_tensorboard", "metric=[lpips]"])
    with pytest.raises(
        ConfigError,
        match=r"logger=\[wandb,tensorboard\]; expected one of csv, ten"
        r"sorboard, wandb, wandb_tensorboard. To fix: logger=wandb_tensorboard",
    ):
        check_loggers(["method=psp", "logger=[wandb,tensorboard]"])  # fmt: skip


def test_files_of_a_users_own_are_found(tmp_path):
    files = {"experiment": "# @package _global_\nseed: 7\n", "optimizer": ADAM}
    for group, content in files.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(content)
    words = [
        "--config-dir",
        str(tmp_path),
        "experiment=mine",
        "optimizer=mine",
        "runs=/proc/nowhere",
    ]
    text = said(tmp_path, *words)
    assert "the run's folder /proc/nowhere" in text, text


BACKBONE = "_target_: ganinv.backbone.irse.arcface\nweights: /mine.pth\n"
LOSS = "defaults:\n  - psp\n  - _self_\nl2:\n  weight: 3.0\n"


def test_a_backbone_is_swapped_set_and_left_out(tmp_path):
    for group, content in {"backbone": BACKBONE, "loss": LOSS}.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(content)

    def loss(*words):
        search = f"hydra.searchpath=[{tmp_path}]"
        return composed(["generator=stylegan2_ffhq1024", search, *words])["loss"]

    key = "loss.identity.backbone"
    assert loss()["identity"]["backbone"]["_target_"].endswith("irse.arcface")
    assert loss(f"{key}.weights=/a.pth")["identity"]["backbone"]["weights"] == "/a.pth"
    swapped = loss(f"backbone@{key}=moco_resnet50")["identity"]["backbone"]
    assert swapped["_target_"].endswith("moco.moco_resnet50")
    for words in (["loss=mine"], ["loss=mine", "method=restyle_psp"], ["method=restyle_e4e"]):
        own = loss(f"backbone@{key}=mine", *words)["identity"]["backbone"]
        assert own["weights"] == "/mine.pth"
    assert loss("loss.identity=null")["identity"] is None
    assert loss("loss=mine")["l2"]["weight"] == 3.0
    cars = loss("experiment=e4e_cars512", "backbone@loss.similarity.backbone=mine")
    assert cars["identity"] is None and cars["similarity"]["backbone"]["weights"] == "/mine.pth"
