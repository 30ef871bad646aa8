"""The encoders compute what the public ones do, under the same state-dict keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ganinv.encoder.e4e import Encoder4Editing
from ganinv.encoder.psp import GradualStyleEncoder, WEncoder, WPlusEncoder
from tests.golden_tools import Case, case, kept_between_cases

TOLERANCE = 1e-5  # relative L2; float32


@pytest.fixture(autouse=True, scope="module")
def kept() -> Iterator[None]:
    with kept_between_cases():
        yield


def build(kind: type[nn.Module], num_ws: int) -> nn.Module:
    return kind(num_ws=num_ws, w_dim=512, input_size=256, input_nc=3, trunk="ir_se50")


def filled(kind: type[nn.Module], golden: Case, num_ws: int) -> nn.Module:
    with torch.device("meta"):
        network = build(kind, num_ws)
    assert set(network.state_dict()) == set(golden.spec["state"])
    network.load_state_dict(golden.state(), assign=True)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "kind", "num_ws", "size"),
    [
        pytest.param(
            "psp_encoder_256", GradualStyleEncoder, 14, 209_450_688, marks=pytest.mark.nightly
        ),
        ("psp_encoder_1024", GradualStyleEncoder, 18, 267_136_704),
        ("psp_wplus_encoder", WPlusEncoder, 14, None),
    ],
)
@torch.inference_mode()
def test_psp(name: str, kind: type[nn.Module], num_ws: int, size: int | None) -> None:
    golden = case(name)
    encoder = filled(kind, golden, num_ws)
    assert golden.error("codes", encoder(golden.input("image256"))) < TOLERANCE
    assert size in (None, sum(p.numel() for p in encoder.parameters()))


@torch.inference_mode()
def test_w_encoder_repeats_the_reference_s_code() -> None:
    golden = case("psp_w_encoder")
    wp = filled(WEncoder, golden, 14)(golden.input("image256"))
    assert wp.shape == (2, 14, 512)
    assert torch.equal(wp[:, 0], wp[:, 13])
    assert golden.error("codes", wp[:, 0]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "num_ws"),
    [("e4e_encoder_256", 14), pytest.param("e4e_encoder_1024", 18, marks=pytest.mark.nightly)],
)
@torch.inference_mode()
def test_e4e_at_every_stored_stage(name: str, num_ws: int) -> None:
    golden = case(name)
    encoder = filled(Encoder4Editing, golden, num_ws)
    image = golden.input("image256")
    taps = encoder.taps(image)
    encoder.taps = lambda image: taps  # the same at every stage
    all_rows: Tensor = encoder(image)
    for output in golden.spec["outputs"]:
        stage = int(output.removeprefix("codes_stage")) if "stage" in output else None
        wp = all_rows if stage is None else encoder(image, stage=stage)
        assert golden.error(output, wp) < TOLERANCE, output
    assert torch.equal(encoder(image, stage=num_ws - 1), all_rows)


def test_two_encoders_share_their_keys_and_differ_in_meaning() -> None:
    """Why a checkpoint must say which class it is of."""
    with torch.device("meta"):
        psp, e4e = build(GradualStyleEncoder, 14), build(Encoder4Editing, 14)
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (psp, e4e)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("stage", "millions"), [(0, 40.7), (2, 60.1), (3, 72.2), (6, 108.4), (7, 122.9), (17, 267.1)]
)
def test_gradient_reaches_the_opened_heads_only(stage: int, millions: float) -> None:
    with FakeTensorMode():  # shapes and graphs, no arithmetic
        encoder = build(Encoder4Editing, 18)
        encoder(torch.zeros(2, 3, 256, 256), stage=stage).sum().backward()
    reached = sum(p.numel() for p in encoder.parameters() if p.grad is not None)
    assert reached / 1e6 == pytest.approx(millions, abs=0.06)
    assert [h.linear.weight.grad is not None for h in encoder.styles] == [
        i <= stage for i in range(18)
    ]
