"""evaluate.py on a real checkpoint: its numbers, its files, what it refuses."""

import csv
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from ganinv.cli.main import main
from ganinv.config.build import build_part
from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.core.image import to_uint8, to_unit
from ganinv.dataset.avatars import draw
from ganinv.evaluation.measure import Stopwatch
from ganinv.evaluation.open import load_trained
from ganinv.evaluation.output import _seconds, notes_of
from ganinv.interop import official
from tests.interop.models import model_of, stylegan2
from tests.runs import ROOT, evaluated, overrides, run, tiny_generator_file


@pytest.fixture(scope="module")
def checkpoint(assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    run([*overrides("psp", *assets), f"run_dir={folder}", "trainer.max_kimg=0.008"])
    return folder / "checkpoints" / "last.ckpt"


def test_the_report_says_how_to_get_identity_where_it_applies():
    def notes(face, *metrics):
        cfg = OmegaConf.create({"dataset": {"_target_": "x", "regions": {"face": face}}})
        return notes_of(SimpleNamespace(cfg=cfg, opened=None, metrics=dict.fromkeys(metrics)))

    assert notes([35, 223, 32, 220], "distortion", "identity") == []
    (told,) = notes([35, 223, 32, 220], "distortion", "lpips")
    assert "identity: not measured; metric=[distortion,lpips,identity] adds it" in told
    assert "does not apply" in notes(None, "distortion")[0]


def test_the_log_hears_a_line_a_minute():
    """Hydra's logging of evaluate.py is on stderr, from INFO on."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", return_hydra_config=True)
    logs = cfg.hydra.job_logging
    assert logs.root == {"level": "INFO", "handlers": ["console"]}
    assert logs.handlers.console.stream == "ext://sys.stderr"


def test_the_numbers_are_those_of_the_reconstructions(checkpoint, capsys):
    """Six test images in batches of four: recomputed here from the encoder and the generator."""
    evaluated(f"checkpoint={checkpoint}", "batch_size=4", "pictures=5")
    (folder,) = (checkpoint.parents[1] / "evaluation").iterdir()
    content = json.loads((folder / "metrics.json").read_text())
    with open(folder / "images.csv") as file:
        per_image = list(csv.DictReader(file))
    trained = load_trained(checkpoint)
    data = _data(trained, checkpoint)
    errors = []
    for batch in data.eval_dataloader("test"):
        x = to_unit(batch["image"])
        x_hat = to_unit(to_uint8(trained.method.reconstruct(x)))
        errors += (x_hat - x).square().mean((1, 2, 3)).tolist()
    assert [float(row["mse"]) for row in per_image] == pytest.approx(errors, rel=1e-4)
    assert content["rows"][0]["mse"] == pytest.approx(sum(errors) / 6, rel=1e-4)
    assert content["images"] == 6 and content["split"] == "test"
    assert content["generator_sha256"] == trained.provenance["generator_sha256"]
    assert {"mse", "psnr", "ssim", "lite0", "seconds_per_image"} <= set(content["rows"][0])
    assert Image.open(folder / "grid-encode.png").size == (5 * 66 + 2, 3 * 66 + 2)
    assert (folder / "report.html").read_text().count("<figure>") == 5 + 6
    out = capsys.readouterr().out
    assert "psnr: dB of the peak 2 of [-1,1], 64 x 64 px" in out
    assert "ms_ssim: the first 3 of 5 scales, for want of pixels" in out
    assert 0 < content["rows"][0]["ms_ssim"] < 1
    words = (
        "identity: does not apply: ArcFace knows photos of aligned faces, and this dataset names"
    )
    assert words in out and words in (folder / "report.html").read_text()
    assert "lite0: Perceptual over EfficientNetLite0, 64 x 64 px" in out
    assert re.search(r"encode +│ +[0-9.]+ │", out) and str(folder / "report.html") in out


def _data(trained, checkpoint):
    data = build_part(trained.cfg, "dataset")
    data.prepare_data()
    return data


def test_moved_faces_are_evaluated_where_they_are(checkpoint, tmp_path):
    """The report says how far; its pictures are the drawings, moved."""
    output = tmp_path / "o"
    evaluated(f"checkpoint={checkpoint}", "dataset=avatars64_moved", "dataset.shift=[4,8]",
              f"dataset.cache={tmp_path}", "dataset.num_test=1", "metric=[distortion]",
              f"output={output}")  # fmt: skip
    content = json.loads((output / "metrics.json").read_text())
    assert content["shift"] == [4, 8] and content["angle"] == 0 and content["images"] == 1
    face, _ = draw(20_000_000, 64)
    grid = np.asarray(Image.open(output / "grid-encode.png"))
    assert np.array_equal(grid[2 + 4 : 2 + 64, 2 + 8 : 2 + 64], face[:-4, :-8])


def test_a_report_is_never_written_over(checkpoint, tmp_path):
    common = (f"checkpoint={checkpoint}", "limit=3", "metric=[distortion]")
    folder = checkpoint.parents[1] / "evaluation"
    before = set(folder.iterdir()) if folder.exists() else set()
    evaluated(*common)
    evaluated(*common)
    assert len(set(folder.iterdir()) - before) == 2
    evaluated(*common, f"output={tmp_path / 'report'}")
    assert json.loads((tmp_path / "report/metrics.json").read_text())["images"] == 3
    with pytest.raises(ConfigError, match="which exists; expected a folder.*nothing was overwr"):
        evaluated(*common, f"output={tmp_path / 'report'}")


def test_half_precision_is_the_inversion_s_alone(checkpoint, tmp_path):
    """Codes of bf16, rendered and measured in float32."""
    common = (f"checkpoint={checkpoint}", "metric=[distortion]")
    mse = []
    for precision in ("32-true", "bf16-mixed"):
        output = tmp_path / precision
        evaluated(*common, f"output={output}", f"trainer.precision={precision}")
        content = json.loads((output / "metrics.json").read_text())
        mse.append(content["rows"][0]["mse"])
        assert content["precision"] == precision
    assert mse[0] != mse[1] and mse[0] == pytest.approx(mse[1], rel=0.02)


def test_a_generator_that_moved_is_named_and_a_different_one_refused(checkpoint, assets, tmp_path):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(assets[0].read_bytes())
    common = (f"checkpoint={checkpoint}", "limit=2", "metric=[distortion]")
    evaluated(*common, f"generator_weights={moved}", f"output={tmp_path / 'a'}")
    torch.manual_seed(1)
    (tmp_path / "b").mkdir()
    other = tiny_generator_file(tmp_path / "b")
    other.write_bytes(
        other.read_bytes().replace(b"random weights for tests", b"another recipe of tests!"[:24])
    )
    with pytest.raises(WeightsError, match="trained on a generator with sha256"):
        evaluated(*common, f"generator_weights={other}")


def test_refusals(checkpoint, assets, tmp_path):
    def refused(words, *arguments, error=ConfigError):
        with pytest.raises(error, match=words):
            evaluated(*arguments)

    given = f"checkpoint={checkpoint}"
    refused("no checkpoint; expected one that train.py wrote", "split=val")
    refused("split=tset; expected one of train, val, test", given, "split=tset")
    for odd in ("limit=0", "limit=abc", "batch_size=1.5", "pictures=null", "seed=-1", "seed=x"):
        refused(f"{odd}; expected a whole number of at least", given, odd)
    refused("accelerator=tpu; expected one of auto, gpu, cpu", given, "trainer.accelerator=tpu")
    refused("no metric; expected at least one", given, "metric=[]")
    refused("no file /nowhere.ckpt", "checkpoint=/nowhere.ckpt", error=WeightsMissing)
    if not torch.cuda.is_available():
        words = "accelerator=gpu on a machine without a CUDA device"
        refused(words, given, "trainer.accelerator=gpu")
    refused("num_nodes=2 .*torchrun or srun", given, "trainer.num_nodes=2")
    refused("precision=fp99; expected one of 32-true", given, "trainer.precision=fp99")
    junk = tmp_path / "junk.ckpt"
    junk.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    refused("junk.ckpt", f"checkpoint={junk}", error=WeightsError)
    folder = tmp_path / "gan"
    run([*overrides("gan", *assets), f"run_dir={folder}", "trainer.max_kimg=0.004"])
    gan = f"checkpoint={folder / 'checkpoints/last.ckpt'}"
    refused("trained by GAN, .*which has no encoder.*python train.py", gan)


def test_a_bundle_stands_in_the_same_table(checkpoint, assets, tmp_path):
    """The numbers of a training checkpoint and of its bundle are the same; a bundle of no training
    names no dataset."""
    common = ("limit=4", "metric=[distortion]")
    file = tmp_path / "m.safetensors"
    assert main(["export", str(checkpoint), "--to", "safetensors", "--out", str(file)]) == 0
    evaluated(f"checkpoint={checkpoint}", *common, f"output={tmp_path / 'a'}")
    evaluated(f"checkpoint={file}", *common, f"output={tmp_path / 'b'}")
    first, second = (
        json.loads((tmp_path / name / "metrics.json").read_text())["rows"][0] for name in "ab"
    )
    assert first["mse"] == pytest.approx(second["mse"], rel=1e-4)


def test_a_released_checkpoint_is_evaluated_on_the_dataset_that_is_named(tmp_path):
    """pSp's own file on samples of its generator: the numbers are its reconstructions'."""
    model = model_of("WEncoder", stylegan2(8))
    official.write(tmp_path / "psp.pt", model, "psp")
    given = f"checkpoint={tmp_path / 'psp.pt'}"
    with pytest.raises(ConfigError, match="names no dataset; expected dataset=NAME"):
        evaluated(given)
    words = "a dataset of 64 x 64 px for an encoder of 256 x 256 px"
    with pytest.raises(ConfigError, match=words):
        evaluated(given, "dataset=avatars64")
    evaluated(given, "dataset=synthetic", "dataset.num_test=3", "metric=[distortion]", "seed=5",
              "batch_size=2")  # fmt: skip
    (folder,) = (tmp_path / "psp-evaluation").iterdir()
    content = json.loads((folder / "metrics.json").read_text())
    assert folder.name == "test-encode" and content["method"] == "released code"
    assert content["kimg"] is None and content["images"] == 3
    recipe = {"split": "test", "psi": 0.7, "cutoff": 8, "image_size": (256, 256)}
    x = model.images({"synthetic": recipe, "position": torch.arange(3)}, seed=5)
    x_hat = to_unit(to_uint8(model.render(model.encode(x), (256, 256))))
    mse = (x_hat - x).square().mean().item()
    assert content["rows"][0]["mse"] == pytest.approx(mse, rel=1e-3)


def test_the_first_batch_of_a_process_is_not_timed_unless_it_is_alone():
    def part(seconds, warm):
        return {"seconds": torch.tensor(seconds)}, {"keys": seconds, "warm": warm}

    parts = [part([100.0] * 4, False), part([0.5] * 4, True), part([2.0], True)]
    assert _seconds(parts) == pytest.approx(0.8)
    assert _seconds(parts[:1]) == pytest.approx(100)
    watch = Stopwatch(torch.device("cpu"))
    assert watch.time(max, 2, 3)[0] == 3 and watch.laps == 1
