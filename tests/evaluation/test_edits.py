"""`editing=`: strips of every inversion method's first images, in the folder and on the page."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ganinv.backbone.probe import Head, Look, write_probe
from ganinv.core.direction import Direction, write_directions
from ganinv.core.errors import ConfigError, WeightsError
from ganinv.core.image import to_uint8
from ganinv.core.interface import Inversion
from ganinv.editing.geometric import Rotate, Scale, Shift, geometric
from ganinv.editing.sefa import sefa
from ganinv.evaluation.edits import edited, may_find_f, rows_of
from ganinv.evaluation.open import open_model
from tests.inversion.methods import base_code_file
from tests.runs import evaluated, plain_overrides, run


@pytest.fixture(scope="module")
def checkpoint(assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits") / "run"
    run([*plain_overrides("psp", *assets), f"run_dir={folder}", "trainer.max_kimg=0.004"])
    return folder / "checkpoints" / "last.ckpt"


def test_every_method_s_first_images_are_edited(checkpoint, tmp_path, capsys):
    """Two methods, two edits, over two batches; one picture is rendered again here."""
    model = open_model(checkpoint).model
    vector = torch.randn(1, 16)
    smile = Direction("smile", vector / vector.norm(), (0, 1), 3.0, None, model.G.sha256)
    write_directions(tmp_path / "smile.safetensors", [smile])
    common = (f"checkpoint={checkpoint}", "batch_size=2", "limit=3", "pictures=3",
              "metric=[distortion]", "inversion=[encode,image2stylegan]",
              "inversion.image2stylegan.steps=1", "editing=[direction,sefa]",
              f"editing.direction.file={tmp_path / 'smile'}",
              "editing.direction.strengths=[-1,0,2]",
              "editing.sefa.component=1", "editing.sefa.wp_layers=[0,1]",
              "editing.sefa.strengths=[0,1]")  # fmt: skip
    evaluated(*common, f"output={tmp_path / 'o'}")
    said = capsys.readouterr().out
    names = [
        f"edit-{i}-{e}.png" for i in ("encode", "image2stylegan") for e in ("direction", "sefa")
    ]
    for name in names:
        assert str(tmp_path / "o" / name) in said
        with Image.open(tmp_path / "o" / name) as picture:
            columns = 3 if "direction" in name else 2
            assert picture.size == (columns * 130 - 2, 18 + 3 * 130 - 2)
    page = (tmp_path / "o/report.html").read_text()
    for words in ("encode: direction", "image2stylegan: sefa"):
        assert words in page
    assert page.count("class='strip'") == 4
    from ganinv.config.build import build_part
    from ganinv.evaluation.open import load_trained

    data = build_part(load_trained(checkpoint).cfg, "dataset")
    data.prepare_data()
    x = next(iter(data.eval_dataloader("test", [[0, 1, 2]])))["image"].float() / 127.5 - 1
    with torch.no_grad():
        wp = model.encode(x)
        wp[:, :2] += 2 * 3.0 * smile.vectors
        expected = to_uint8(model.render(wp))[2].permute(1, 2, 0).numpy().astype(int)
    with Image.open(tmp_path / "o" / names[0]) as picture:
        shown = np.array(picture)[18 + 260 :: 2, 260::2].astype(int)
    assert np.abs(shown - expected).max() <= 1
    assert sefa(model.G, layers=[0, 1], count=2, normalise=False)[1].layers == (0, 1)


def test_metrics_of_edits_stand_in_the_table(checkpoint, tmp_path, capsys):
    """Of the encoder and of BDInvert: with intervals, and what is behind them."""
    width, name = 1280, "skin_tone"
    heads = [Head(name, "number", 0.95), Head("smile", "yes_no", 0.93)]
    weight = torch.randn(2, width, generator=torch.Generator().manual_seed(0)) / width**0.5
    look = Look("efficientnet_lite0", (), 1, (64, 64))
    write_probe(tmp_path / "probe.safetensors", look, heads, weight, torch.zeros(2))
    common = (f"checkpoint={checkpoint}", "pictures=1", "limit=4",
              "metric=[lec,change,kid_lite0,edit_fid_lite0,ppl_lite0,eq_t,eq_r]",
              "metric.lec.edit=sefa", "metric.lec.images=1",
              "metric.change.edit=sefa", f"metric.change.probe={tmp_path / 'probe.safetensors'}",
              f"metric.change.attribute={name}", "metric.change.amount=1e-4",
              "metric.edit_fid_lite0.edit=sefa", "metric.edit_fid_lite0.attribute=glasses",
              "editing=[sefa,shift,rotate]", "editing.sefa.strengths=[0,2]",
              "inversion=[encode,bdinvert]", "inversion.bdinvert.steps=1",
              "inversion.bdinvert.samples=50",
              f"inversion.bdinvert.base_code={base_code_file(None, channels=8)}")  # fmt: skip
    evaluated(*common, "batch_size=3", f"output={tmp_path / 'o'}")
    said = capsys.readouterr().out
    first = json.loads((tmp_path / "o/metrics.json").read_text())
    columns = {"lec", "lec_batches", "change_reached", "change_others", "kid_lite0", "eq_t", "eq_r",
               "edit_fid_lite0", "ppl_w_end_whole_lite0"}  # fmt: skip
    assert set(first["higher_is_better"]) == columns
    plain, bdinvert = first["rows"]
    for row in first["rows"]:
        for column in columns - {"eq_t", "eq_r"}:
            assert row[f"{column}_low"] <= row[column] <= row[f"{column}_high"], column
    assert plain["eq_t"] is None and plain["eq_t_low"] is None  # it finds no f
    for column in ("eq_t", "eq_r"):
        assert bdinvert[f"{column}_low"] <= bdinvert[column] <= bdinvert[f"{column}_high"]
    assert set(bdinvert["details"]["eq_t"]) == {"-1 cells", "+1 cells"}
    assert set(plain["details"]["edit_fid_lite0"]) == {"0", "+2", "images of A", "of B"}
    assert plain["details"]["change_others"].keys() == {"smile", "strength"}
    assert "encode, edit_fid_lite0: 0 " in said and "lec_batches: sefa by 3, batches of 1" in said
    page = (tmp_path / "o/report.html").read_text()
    assert "encode, edit_fid_lite0: 0 " in page and f"{plain['lec']:.4g}\n[" in page
    lines = (tmp_path / "o/images.csv").read_text().splitlines()
    assert "lec,ppl_w_end_whole_lite0" in lines[0] and len(lines) == 9
    one = [float(line.split(",")[2]) for line in lines[1:5]]
    assert sum(one) / 4 == pytest.approx(plain["lec"])


def test_metrics_of_edits_that_are_not_there_are_refused(checkpoint, tmp_path):
    for words, *arguments in (
        (r"lec with edit=direction, which is not among the edits \(sefa\)", "metric=[lec]",
         "editing=[sefa]"),
        ("edit_fid_lite0 without an attribute", "metric=[edit_fid_lite0]", "editing=[sefa]"),
        ("change without probe or attribute", "metric=[change]", "editing=[sefa]"),
        ("metric.lec.strength=x.*; expected a number", "metric=[lec]", "metric.lec.strength=x"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            evaluated(f"checkpoint={checkpoint}", *arguments, f"output={tmp_path / 'o'}")
    assert not (tmp_path / "o").exists()


def test_edits_that_cannot_be_are_refused_before_anything_is_inverted(checkpoint, tmp_path):
    def refused(words, *arguments, error=ConfigError):
        with pytest.raises(error, match=words):
            evaluated(f"checkpoint={checkpoint}", "limit=2", *arguments)

    refused(r"editing=rotate with inversion=\[encode\], none of which finds an f; expected bdinv",
            "editing=[rotate]")  # fmt: skip
    refused("editing=direction without a file; expected FILE", "editing=[direction]")
    refused("strengths=.*; expected a list, each of it a number", "editing=[sefa]",
            "editing.sefa.strengths=[1,abc]")  # fmt: skip
    refused("editing.sefa.strengths=.*; expected at least one", "editing=[sefa]",
            "editing.sefa.strengths=[]")  # fmt: skip
    refused("editing.sefa.wp_layers=.*expected a list, each of it a whole number of at least 0",
            "editing=[sefa]", "editing.sefa.wp_layers=[-1]")  # fmt: skip
    write_directions(tmp_path / "age.safetensors", [Direction("age", torch.ones(1, 512))])
    refused("age of width 512; expected one of width 16", "editing=[direction]",
            f"editing.direction.file={tmp_path / 'age'}", error=WeightsError)  # fmt: skip


class Renderer:
    """A model whose picture is f itself."""

    def render(self, found, size):
        return found.f


def test_geometric_edits_move_f_and_skip_what_has_none():
    class G:
        resolution = 8

    found = Inversion(torch.zeros(2, 2, 3), f=torch.rand(2, 3, 8, 8) * 2 - 1)
    edits = {
        "rotate": Rotate(strengths=[0, 90], padding="zeros", generator=G),
        "scale": Scale(strengths=[1, 2], padding="zeros", generator=G),
        "shift": Shift(strengths=[0, 25], padding="zeros", towards="right", generator=G),
    }
    shown = edited(edits, Renderer(), found, (8, 8))
    known = {"rotate": {"angle": 90}, "scale": {"scale": 2}, "shift": {"shift": (0.0, 2.0)}}
    for name, how in known.items():
        moved = geometric(found, size=8, padding="zeros", **how).f
        assert shown[name][0].equal(to_uint8(found.f)) and shown[name][1].equal(to_uint8(moved))
    assert [edits[n].label(s) for n, s in (("rotate", 0), ("rotate", 90), ("scale", 1),
            ("shift", -25))] == ["0", "+90°", "x1", "-25 %"]  # fmt: skip
    assert edited(edits, Renderer(), Inversion(found.wp), (8, 8)) == {}
    some = rows_of(Inversion(found.wp, found.f, {"n": found.f}, None), [1])
    assert some.f.equal(found.f[1:]) and some.noise["n"].equal(found.f[1:]) and some.weights is None
    assert not may_find_f(Renderer())
    with pytest.raises(ConfigError, match="editing.scale.strengths with 0; expected factors above"):
        Scale(strengths=[1, 0], padding="zeros", generator=G)
