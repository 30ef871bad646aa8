"""`trainer=dry`: a recipe tried before anything is downloaded, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ganinv.core.errors import ConfigError
from ganinv.trainer import dry
from tests.house.tree import CONF
from tests.runs import composed
from train import train

IDINVERT = [
    "trainer=dry",
    "method=idinvert",
    "generator=stylegan",
    "generator.weights=nowhere.pth",
    "generator.kind=stylegan_layerwise",
    "generator.resolution=16",
    "dataset=shards",
    "dataset.root=/nowhere",
    "dataset.image_size=[16,16]",
    "dataset.generator_resolutions=[16]",
    "encoder.channel_base=16",
    "encoder.channel_max=64",
]


def test_one_step_with_everything_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("GANINV_WEIGHTS", raising=False)
    train(composed(IDINVERT))
    said = capsys.readouterr().out
    for words in (
        "one step on noise; nothing is saved",
        "random: generator (nowhere.pth), stylegan_layerwise of 16 px",
        "random: method.discriminator_weights",
        "random: loss.vgg.backbone (vgg16.pth)",
        "  G: ",
        "  D: ",
        "frozen",
        "D/penalty",
        "One step of 2 images on cpu (32-true):",
        "GiB at most",
    ):
        assert words in said, words
    assert not list(tmp_path.iterdir())  # nothing is left


def test_what_cannot_fit_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry, "free_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match=r"needs at least 0.1 GiB more on cpu"):
        train(composed(["trainer=dry"]))


def test_a_generator_that_nobody_describes(monkeypatch: pytest.MonkeyPatch) -> None:
    kindless = [word for word in IDINVERT if "kind" not in word]
    with pytest.raises(ConfigError, match=r"generator.kind=None and generator.resolution=16"):
        train(composed(kindless))
    other = [*IDINVERT, "dataset.generator_resolutions=[32]"]
    with pytest.raises(ConfigError, match=r"a generator of 16 px with images of 16 x 16 px"):
        train(composed(other))
    with pytest.raises(ConfigError, match=r"dry.batch_size=3 with trainer.micro_batches=2"):
        train(composed([*IDINVERT, "dry.batch_size=3", "trainer.micro_batches=2"]))


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_names_all_that_a_dry_run_needs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every network of a recipe is found or drawn, at the published widths; none is built here."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("GANINV_WEIGHTS", raising=False)
    drawn_kinds = []

    def described(kind: str, resolution: int) -> object:
        drawn_kinds.append((kind, resolution))
        with torch.device("meta"):
            return random_generator(kind, resolution)

    random_generator = dry.random_generator
    monkeypatch.setattr(dry, "random_generator", described)
    monkeypatch.setattr(dry, "random_critic", lambda generator: None)
    monkeypatch.setattr(dry, "save_bundle", lambda *args, **kwargs: None)
    cfg, drawn = dry.with_random_weights(
        composed([f"experiment={path.stem}", "trainer=dry"]), tmp_path
    )
    embedded = "avatars64" in path.stem
    assert bool(drawn_kinds) != embedded
    targets = [node["_target_"] for _, node in dry._built(cfg.get("loss"), "loss")]
    assert not set(targets) & {*dry.BACKBONES, "ganinv.loss.lpips.LPIPS"}
    assert embedded or any("generator" in name for name in drawn)
    assert cfg.get("encoder", {}).get("trunk_weights") is None
    assert dry.Noise(cfg).batch()["position"].tolist() == [0, 1]
