"""ArcFace computes what the public one does; its weights are found or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ganinv.backbone.irse import ArcFaceNet, arcface, folded
from ganinv.core.errors import WeightsError, WeightsMissing
from tests.golden_tools import case


@torch.inference_mode()
def test_arcface_equals_the_reference() -> None:
    golden = case("arcface_irse50")
    with torch.device("meta"):
        network = ArcFaceNet()
    assert (
        set(network.state_dict()) == set(golden.spec["state"]) and len(network.state_dict()) == 397
    )
    network.load_state_dict(golden.state(), assign=True)
    embedding = network.eval()(golden.input("image112"))
    assert golden.error("embedding", embedding) < 1e-5
    again = folded(network)(golden.input("image112"))  # as the identity term has it
    assert golden.error("embedding", again) < 1e-5
    left = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    assert len(left) == 54 - 29


def test_missing_arcface_names_file_source_and_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANINV_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsMissing) as refusal:
        arcface(weights=None)
    for words in ("model_ir_se50.pth", str(tmp_path), "pixel2style2pixel", "loss.identity=null"):
        assert words in str(refusal.value)


def test_arcface_file_of_another_network(tmp_path: Path) -> None:
    torch.save({"input_layer.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth.*397 tensors of ArcFaceNet"):
        arcface(weights=str(tmp_path / "other.pth"))
