"""Where weights are looked for, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from ganinv.backbone import catalogue, weights
from ganinv.core.errors import WeightsError, WeightsMissing
from ganinv.core.safe.io import sha256_file


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Our folder and torch.hub's, both empty."""
    ours, hub = tmp_path / "ours", tmp_path / "torch" / "hub" / "checkpoints"
    ours.mkdir()
    hub.mkdir(parents=True)
    monkeypatch.setenv("GANINV_WEIGHTS", str(ours))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return ours, hub


def test_our_folder_goes_before_torch_s_cache(places: tuple[Path, Path]) -> None:
    ours, hub = places
    (hub / "model_ir_se50.pth").write_bytes(b"1")
    assert catalogue.locate("arcface_ir_se50").parent == hub
    (ours / "model_ir_se50.pth").write_bytes(b"2")
    assert catalogue.locate("arcface_ir_se50").parent == ours
    assert catalogue.locate("arcface_ir_se50", "model_ir_se50.pth").parent == ours


def test_a_path_goes_before_all(places: tuple[Path, Path], tmp_path: Path) -> None:
    (places[0] / "model_ir_se50.pth").write_bytes(b"1")
    own = tmp_path / "own.pth"
    own.write_bytes(b"2")
    assert catalogue.locate("arcface_ir_se50", str(own)) == own


@pytest.mark.parametrize("name", sorted(catalogue.CATALOGUE))
def test_missing_file_says_what_to_do(
    name: str, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    entry = catalogue.CATALOGUE[name]
    with pytest.raises(WeightsMissing) as refusal:
        catalogue.locate(name)
    text = str(refusal.value)
    for words in (
        entry.file,
        str(places[0]),
        str(places[1]),
        entry.source,
        entry.instead,
        "GANINV_WEIGHTS",
    ):
        assert words in text


def test_a_given_path_is_never_replaced_by_another_file(places: tuple[Path, Path]) -> None:
    (places[0] / "model_ir_se50.pth").write_bytes(b"1")
    with pytest.raises(WeightsMissing, match="mine.pth"):
        catalogue.locate("arcface_ir_se50", "/somewhere/mine.pth")
    with pytest.raises(WeightsMissing, match="/somewhere"):
        catalogue.locate("arcface_ir_se50", "/somewhere/model_ir_se50.pth")


def test_torch_s_cache_is_where_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCH_HOME", None), ("XDG_CACHE_HOME", "/x"), ("TORCH_HOME", "~/t")):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
        assert catalogue.hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_cached_file_must_be_the_one_its_name_promises(places: tuple[Path, Path]) -> None:
    (places[1] / "alexnet-owt-7be5be79.pth").write_bytes(b"half a download")
    with pytest.raises(WeightsError, match=r"begins with 7be5be79.*fetch the file again"):
        catalogue.locate("alexnet")


def test_what_was_loaded_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "net.pth"
    torch.save({"a": torch.ones(2)}, file)
    with caplog.at_level(logging.INFO):
        state, provenance = weights.load("alexnet", str(file))
    assert torch.equal(state["a"], torch.ones(2))
    assert provenance == f"net.pth (sha256 {sha256_file(file)[:16]})" and provenance in caplog.text


def test_a_file_that_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        weights.load("alexnet", str(tmp_path / "net.pth"))


def test_fit_names_what_differs_and_changes_nothing() -> None:
    network = nn.Linear(2, 3)
    before = network.weight.detach().clone()
    with pytest.raises(WeightsError, match=r"f.pth has no bias, an unknown b, weight of \[1, 2\]"):
        weights.fit(network, {"weight": torch.zeros(1, 2), "b": torch.zeros(3)}, "f.pth")
    assert torch.equal(network.weight, before)
    weights.fit(network, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "f.pth")
    assert torch.equal(network.weight, torch.ones(3, 2))
