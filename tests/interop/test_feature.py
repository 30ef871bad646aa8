"""Feature networks in the files of others: recognised, checked, brought into plain form."""

import pytest
import torch
from torchvision.models import resnet50

from ganinv.backbone.moco import is_training_checkpoint
from ganinv.core.errors import WeightsError
from ganinv.encoder.base_code import BaseCodeEncoder
from ganinv.interop import feature
from tests.golden_tools import case


def test_arcface():
    state = case("arcface_irse50").state()
    assert feature.is_arcface(state) and len(state) == 397
    assert set(feature.arcface(state)) == set(state)
    del state["body.3.res_layer.1.weight"]
    with pytest.raises(WeightsError, match="looks like ArcFace's with no body.3.res_layer.1.wei"):
        feature.arcface(state)


def moco_file():
    state = {f"module.encoder_q.{k}": v for k, v in resnet50(weights=None).state_dict().items()}
    state |= {f"module.encoder_q.fc.{i}.weight": torch.zeros(2, 2) for i in (0, 2)}
    state |= {"module.queue": torch.zeros(4), "module.encoder_k.conv1.weight": torch.zeros(1)}
    return {"epoch": 800, "arch": "resnet50", "state_dict": state}


def test_moco():
    file = moco_file()
    assert is_training_checkpoint(file) and not feature.is_arcface(file)
    network = resnet50(weights=None)
    missing = network.load_state_dict(feature.moco(file), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"] and not missing.unexpected_keys
    file["state_dict"]["module.encoder_q.conv1.weight"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"conv1.weight of \[3\] instead of \[64, 3, 7, 7\]"):
        feature.moco(file)


@pytest.mark.parametrize("name", ["bdinvert_base_encoder_128_16", "bdinvert_base_encoder_64_8"])
def test_base_code(name):
    golden = case(name)
    state = golden.state()
    file = {"encoder": state, "optimizer": {}, "epoch": 3}
    assert feature.is_base_code(file) and feature.is_base_code(state)
    architecture, found = feature.base_code(file)
    assert all(torch.equal(found[key], value) for key, value in state.items())
    side = golden.ctor["encoder_output_shape"][-1]
    encoder = BaseCodeEncoder(side=side, **architecture)
    encoder.load_state_dict(found)
    with pytest.raises(WeightsError, match="of too few convolutions"):
        feature.base_code({k: v for k, v in state.items() if int(k.split(".")[1]) < 6})


def test_entries_that_are_no_tensors():
    state = case("arcface_irse50").state() | {"input_layer.2.weight": "text"}
    with pytest.raises(WeightsError, match="with 'text' under"):
        feature.arcface(state)
