"""A preset changes the choices that it has files for, says so, and leaves all others alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ganinv.config.check import check_config
from ganinv.config.preset import preset_changes
from ganinv.core.errors import ConfigError
from tests.house.tree import CONF, names
from tests.processes import command_ready, launch_ready
from tests.runs import overrides

SMALL = "stylegan2_avatars64"
OWN = {  # a user's own files
    "loss/mine.yaml": "l2: null\nlpips:\n  _target_: ganinv.loss.lpips.LPIPS\n  weight: 0.3\n"
    "  net: alex\n  weights: null\n",
    "trainer/mine.yaml": "defaults:\n  - cpu\n  - _self_\nmax_kimg: 77\n",
    "encoder/mine.yaml": "defaults:\n  - psp\n  - _self_\ninput_nc: 3\n",
    "optimizer/mine.yaml": "_target_: torch.optim.AdamW\n_partial_: true\nlr: 2.0e-4\n",
    "dataset/mine.yaml": "defaults:\n  - avatars64\n  - _self_\nnum_train: 10\n",
    "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /loss: mine\n"
    "  - override /trainer: mine\nloss:\n  lpips:\n    weight: 0.4\n",
    "experiment/without.yaml": "# @package _global_\ndefaults:\n  - override /preset: none\n",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for name, text in OWN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def composed(*words: str, own: Path | None = None) -> dict:
    """What is trained, interpolations left as they are; `own` is --config-dir's."""
    search = [] if own is None else [f"hydra.searchpath=[{own}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*words, *search])
    return OmegaConf.to_container(cfg)


def changes(*words: str) -> list[str]:
    """What the log says."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return preset_changes(cfg)


def test_the_built_in_domain_takes_minutes() -> None:
    cfg = composed()
    assert cfg["trainer"]["max_kimg"] == 10 and cfg["dataset"]["batch_size"] == 8
    assert cfg["encoder"]["trunk"] == "ir_se_small" and cfg["optimizer"]["lr"] == 4e-3
    assert cfg["loss"]["lpips"] is None and cfg["loss"]["perceptual"]["weight"] == 0.8
    assert composed("generator=stylegan2_ffhq1024")["trainer"]["max_kimg"] == 100


CHOSEN = {  # a choice that no preset knows -> its group
    "loss=mine": "loss",
    "loss=lite0": "loss",
    "trainer=mine": "trainer",
    "trainer=ddp": "trainer",
    "trainer=gpu": "trainer",
    "encoder=mine": "encoder",
    "encoder=psp_w": "encoder",
    "encoder=idinvert_5x5": "encoder",
    "optimizer=mine": "optimizer",
    "optimizer=adam": "optimizer",
    "dataset=mine": "dataset",
    "dataset=shards": "dataset",
}


@pytest.mark.parametrize("word", CHOSEN)
def test_another_choice_means_what_its_file_says(word, own) -> None:
    group = CHOSEN[word]
    with_it, without = composed(word, own=own), composed(word, "preset=none", own=own)
    assert with_it[group] == without[group]
    others = {"encoder", "loss", "optimizer", "trainer"} - {group}
    assert all(with_it[other] != without[other] for other in others)


def test_a_loss_of_the_users_own_is_not_touched(own) -> None:
    loss = composed("loss=mine", own=own)["loss"]
    assert list(loss) == ["l2", "lpips"] and loss["l2"] is None and loss["lpips"]["weight"] == 0.3


@pytest.mark.parametrize("method", ["e4e", "idinvert", "bdinvert", "restyle_e4e"])
def test_a_run_of_another_length_keeps_the_papers_schedule(method) -> None:
    """The schedule of a method goes with the length of the run, not with the generator."""
    schedule = {"progressive_start", "progressive_every", "decay_every"}
    long, paper = composed(f"method={method}", "trainer=ddp"), composed(
        f"method={method}", "preset=none"
    )  # fmt: skip
    short = composed(f"method={method}")
    there = schedule & set(paper["method"])
    assert there and all(long["method"][key] == paper["method"][key] for key in there)
    assert all(short["method"][key] < paper["method"][key] for key in there)


def test_an_experiment_chooses_too_and_its_values_stand(own) -> None:
    cfg = composed("experiment=mine", own=own)
    assert cfg["trainer"]["max_kimg"] == 77
    assert list(cfg["loss"]) == ["l2", "lpips"] and cfg["loss"]["lpips"]["weight"] == 0.4
    assert cfg["encoder"]["trunk"] == "ir_se_small", "chosen by nobody"
    assert composed("experiment=mine", "loss=psp", own=own)["loss"]["l2"]["weight"] == 4.0
    without = composed("experiment=without", own=own)
    assert without == composed("preset=none", own=own)


def test_values_that_are_typed_stand() -> None:
    cfg = composed("trainer.max_kimg=3", "loss.l2.weight=2", "loss.perceptual.weight=0.1")
    assert cfg["trainer"]["max_kimg"] == 3 and cfg["loss"]["l2"]["weight"] == 2
    assert cfg["loss"]["perceptual"]["weight"] == 0.1


def test_a_preset_by_its_name() -> None:
    generator = ["generator=stylegan2", "generator.weights=/mine.pt"]
    assert composed(*generator)["trainer"]["max_kimg"] == 100
    assert composed(*generator, f"preset={SMALL}")["trainer"]["max_kimg"] == 10
    assert composed("preset=none")["trainer"]["max_kimg"] == 100


def test_a_misspelled_preset_is_refused(tmp_path) -> None:
    text = command_ready("train.py", ["preset=stylegan2_avatars"], tmp_path)
    assert "preset=stylegan2_avatars, which is not in conf/preset; expected one of" in text


@pytest.mark.parametrize("method", [n for n in names("method") if n != "gan"])
def test_what_is_told_is_the_difference(method) -> None:
    lines = changes(f"method={method}")
    assert "trainer.max_kimg: 100 -> " in "; ".join(lines)
    told = {line.split(":")[0] for line in lines}
    with_it, without = composed(f"method={method}"), composed(f"method={method}", "preset=none")
    for group, node in without.items():
        if node != with_it[group]:
            assert any(key.startswith(f"{group}.") for key in told), group
        else:
            assert not any(key.startswith(f"{group}.") for key in told), group


def test_what_is_told_leaves_out_what_the_user_set() -> None:
    assert changes("preset=none") == changes("method=gan") == []
    lines = changes("trainer.max_kimg=3", "optimizer=adam", "loss.perceptual.weight=0.1")
    assert "trainer.val_every_kimg: 10 -> 4" in lines
    assert "loss.perceptual: absent -> Perceptual(weight=0.1)" in lines
    assert "loss.identity: Identity(weight=0.1, region=${dataset.regions.face}) -> null" in lines
    assert not any(line.startswith(("trainer.max_kimg", "optimizer")) for line in lines)


def test_a_run_says_it_and_the_printed_config_has_it(assets, tmp_path) -> None:
    words = overrides("psp", *assets)
    said = launch_ready([*words, "trainer.max_kimg=0.004"], tmp_path / "run")
    line = next(x for x in said.splitlines() if f"preset={SMALL}" in x)
    assert "encoder.trunk: ir_se50 -> ir_se_small" in line and "max_kimg" not in line
    assert line in (tmp_path / "run/logs/rank0.log").read_text()
    printed = command_ready("train.py", ["--cfg", "job", "preset=null"], tmp_path, 0)
    assert "trunk: ir_se50" in printed and "max_kimg: 100" in printed
    printed = command_ready("train.py", ["--cfg", "job"], tmp_path, 0)
    assert "trunk: ir_se_small" in printed and "max_kimg: 10" in printed


def test_choices_that_are_taken_out_are_still_told_of() -> None:
    for group in ("encoder", "dataset", "loss"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=[f"~{group}"])
        with pytest.raises(ConfigError, match=f"{group}=null"):
            check_config(cfg)


def test_a_sweep_composes_each_run_with_its_own_choices(assets, tmp_path) -> None:
    words = [word for word in overrides("psp", *assets) if not word.startswith("optimizer.")]
    words = ["--multirun", *words, "trainer.max_kimg=0.004", f"runs={tmp_path}"]
    words += ["optimizer=ranger,adam"]
    command_ready("train.py", words, tmp_path, 0)
    configs = [yaml.safe_load(path.read_text()) for path in tmp_path.glob("*/config.yaml")]
    rates = {
        cfg["optimizer"]["_target_"].rpartition(".")[2]: cfg["optimizer"]["lr"] for cfg in configs
    }
    assert rates == {"Ranger": 4e-3, "Adam": 1e-4}


def test_files_of_config_dir_are_left_alone_too(own, tmp_path) -> None:
    words = ["--config-dir", str(own), "--cfg", "job", "--package"]
    printed = command_ready("train.py", [*words, "loss", "experiment=mine"], tmp_path, 0)
    loss = yaml.safe_load(printed)
    assert list(loss) == ["l2", "lpips"] and loss["l2"] is None and loss["lpips"]["weight"] == 0.4
    printed = command_ready("train.py", [*words, "trainer", "trainer=mine"], tmp_path, 0)
    assert yaml.safe_load(printed)["max_kimg"] == 77
