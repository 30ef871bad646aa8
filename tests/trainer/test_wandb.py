"""W&B and TensorBoard as a run leaves them, read back from their files: nobody is logged in."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from evaluate import evaluate
from ganinv.cli.main import main
from ganinv.config.check import check_config
from ganinv.core.errors import ConfigError, RunError
from ganinv.core.safe.io import read_metadata, sha256_file
from ganinv.interop.bundle import FORMAT
from ganinv.method.psp import PSp
from ganinv.run.folder import _given_id
from ganinv.run.status import read_state
from ganinv.trainer.alerts import Alerts
from ganinv.trainer.loggers import WandbRun
from ganinv.trainer.workspace import build_workspace
from tests.house.tree import CONF
from tests.runs import composed, composed_evaluate, overrides, run
from tests.trainer.wandb_file import records

LOGGERS = ["logger=wandb_tensorboard", "logger.offline=true"]


@pytest.fixture(scope="module")
def folder(assets, tmp_path_factory) -> Iterator[Path]:
    """A run of six steps whose second one is skipped."""
    folder = tmp_path_factory.mktemp("logged") / "run"
    loss, calls = PSp.loss_E, []

    def broken(self, *arguments):
        calls.append(1)
        factor = float("nan") if len(calls) == 2 else 1.0
        return {name: (factor * w, v) for name, (w, v) in loss(self, *arguments).items()}

    words = [word for word in overrides("psp", *assets) if word != "logger=csv"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PSp, "loss_E", broken)
        run([*words, *LOGGERS, "logger.artifacts=true", "name=my+run", f"run_dir={folder}"])
    assert wandb.run is None  # the next training of a multirun begins its own
    written(folder)
    yield folder
    wandb.teardown()  # which processes of later tests would find in the environment


def written(folder: Path) -> None:
    """Wait until the service that writes the file has done so."""
    until = time.monotonic() + 20
    while not any(r.HasField("exit") for r in records(folder)) and time.monotonic() < until:
        time.sleep(0.1)


def test_a_run_tells_when_it_skips_a_step_and_when_it_ends(folder):
    alerts = [r.alert for r in records(folder) if r.HasField("alert")]
    assert [(a.title, a.level) for a in alerts] == [
        ("run: skipped steps", "WARN"),
        ("run: finished", "INFO"),
    ]
    assert alerts[0].text == "at 0.01 kimg, 1 in all: gradients that are NaN or Inf"
    assert alerts[1].text.startswith("at 0.02 kimg, total ")


def artifacts(folder: Path) -> dict[str, object]:
    written(folder)
    found = [r.artifact for r in records(folder) if r.HasField("artifact")]
    return {artifact.name: artifact for artifact in found}


def test_a_run_keeps_its_lineage_and_its_best_checkpoint_and_bundle(folder, assets):
    found = artifacts(folder)
    data = yaml.safe_load((folder / "config.yaml").read_text())["dataset"]
    (drawn,) = Path(data["cache"]).glob("avatars64-20-6-6-*")
    inputs = {f"dataset-{drawn.name}", f"generator-{assets[0].name}"}
    assert set(found) == inputs | {"my-run-checkpoint", "my-run-bundle"}
    assert {name for name, a in found.items() if a.use_after_commit} == inputs
    facts = json.loads(found[f"dataset-{drawn.name}"].metadata)
    index = (drawn / "train" / "index.json").read_bytes()
    assert facts["index_sha256"]["train"] == hashlib.sha256(index).hexdigest()
    assert facts["images"] == {"train": 20, "val": 6}
    digest = sha256_file(assets[0])
    assert json.loads(found[f"generator-{assets[0].name}"].metadata)["sha256"] == digest
    checkpoint, bundle = found["my-run-checkpoint"], found["my-run-bundle"]
    assert checkpoint.type == bundle.type == "model" and "best" in checkpoint.aliases
    facts = json.loads(bundle.metadata)
    assert facts["generator_sha256"] == digest and facts["run"] == "run"
    assert facts["best"] == read_state(folder)["best"]
    kept = {entry.path: Path(entry.local_path) for entry in checkpoint.manifest.contents}
    assert set(kept) == {"best.ckpt", "config.yaml"}
    assert sha256_file(kept["best.ckpt"]) == sha256_file(folder / "checkpoints" / "best.ckpt")
    (entry,) = bundle.manifest.contents
    assert entry.path == "best.safetensors"
    assert read_metadata(folder / "checkpoints" / "best.safetensors")["format"] == FORMAT


def test_tensorboard_has_the_same_numbers_and_the_grid(folder):
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    history = [
        {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in r.history.item}
        for r in records(folder)
        if r.HasField("history")
    ]
    logged = {h["trainer/global_step"]: h["train/l2"] for h in history if "train/l2" in h}
    events = {event.step: event.value for event in board.Scalars("train/l2")}
    assert sorted(events) == [4, 8, 12, 16, 20, 24]
    assert {k: pytest.approx(v) for k, v in events.items() if v == v} == {
        k: v for k, v in logged.items() if v == v
    }
    assert [event.step for event in board.Images("val/grid")] == [16, 24]
    assert "config/text_summary" in board.Tags()["tensors"]


def test_a_run_that_fails_tells_why():
    told = []

    def alert(*words):
        told.append(words[:3])
        if len(told) == 2:
            raise ConnectionError("gone")

    logger = WandbRun(keeps_models=False, project="x", offline=True)
    logger._experiment = SimpleNamespace(name="me", alert=alert)
    trainer = SimpleNamespace(is_global_zero=True, loggers=[logger])
    method = PSp.__new__(PSp)
    object.__setattr__(method, "images_seen", 1230)
    Alerts().on_exception(trainer, method, RunError("rank 1 was killed"))
    Alerts().on_exception(trainer, method, KeyboardInterrupt())  # W&B is gone: no second error
    assert told == [
        ("me: failed", "at 1.23 kimg: RunError: rank 1 was killed", "ERROR"),
        ("me: interrupted", "at 1.23 kimg", "INFO"),
    ]


def test_an_evaluation_becomes_a_table_of_images_errors_and_numbers(folder, tmp_path):
    out = tmp_path / "report"
    words = [f"checkpoint={folder}/checkpoints/best.ckpt", "limit=3", "pictures=2", f"output={out}"]
    evaluate(composed_evaluate(*words, *LOGGERS))
    (artifact,) = artifacts(out).values()  # W&B keeps a table of images as one
    kept = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    table = json.loads(kept["evaluation.table.json"].read_text())
    columns = ["key", "inversion", "image", "reconstruction", "error"]
    assert table["columns"][:5] == columns and {"mse", "psnr", "lite0"} <= set(table["columns"])
    assert len(table["data"]) == 3  # the first two and the two worst, each once
    for row in table["data"]:
        for name in ("image", "reconstruction", "error"):
            picture = row[columns.index(name)]
            assert Image.open(kept[picture["path"]]).size == (64, 64)
    rows = (out / "images.csv").read_text().splitlines()
    first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    shown = dict(zip(table["columns"], table["data"][0], strict=True))
    assert shown["key"] == first["key"] and shown["mse"] == pytest.approx(float(first["mse"]))
    run_record = next(r.run for r in records(out) if r.HasField("run"))
    config = {i.key: json.loads(i.value_json) for i in run_record.config.update}
    assert run_record.job_type == "evaluate"
    assert config["training_run_id"] == read_state(folder)["wandb_id"]
    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    assert board.Tags()["images"] == ["evaluation/encode"]
    assert "evaluation/encode/mse" in board.Tags()["scalars"]


def test_an_evaluation_that_could_not_be_logged_goes_on_there(folder, tmp_path, monkeypatch):
    """The images are measured once."""
    out = tmp_path / "report"
    words = [f"checkpoint={folder}/checkpoints/best.ckpt", "limit=2", "metric=[distortion]"]
    words += [f"output={out}", *LOGGERS]

    def refused(*given):
        raise ConnectionError("no route")

    monkeypatch.setattr("ganinv.cli._logged_result.log_evaluation", refused)
    said = f"not logged: ConnectionError: no route; expected .* report is in {out}"
    with pytest.raises(RunError, match=said):
        evaluate(composed_evaluate(*words))
    assert (out / "report.html").is_file()
    logged = []
    monkeypatch.setattr("ganinv.cli._logged_result.log_evaluation", lambda *a: logged.append(a[1]))

    def nothing_left(measurement, work, numbers):
        assert not numbers
        return iter(())

    monkeypatch.setattr("ganinv.evaluation.measure.Measurement.__call__", nothing_left)
    evaluate(composed_evaluate(*words))
    assert logged[0]["encode"]["mse"] > 0 and not (out / ".parts").exists()


def test_an_evaluation_logs_nothing_unless_it_is_asked_to(folder, tmp_path):
    out = tmp_path / "report"
    words = [f"checkpoint={folder}/checkpoints/best.ckpt", "limit=2", "metric=[distortion]"]
    evaluate(composed_evaluate(*words, f"output={out}"))
    assert not (out / "wandb").exists() and not (out / "metrics.csv").exists()


def test_a_logger_that_is_not_installed_is_refused_first(monkeypatch):
    monkeypatch.setattr("ganinv.config.check.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="without the package tensorboard; expected .* pip inst"):
        check_config(composed(["logger=tensorboard"]))


def test_the_sweep_of_hydra_runs_every_value():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["sweep=rates"], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert dict(cfg.hydra.sweeper.params) == {"optimizer.lr": "1.0e-4,3.0e-4,1.0e-3", "seed": "0,1"}


def test_the_sweep_of_wandb_composes_and_keeps_its_runs(monkeypatch):
    """The words that W&B's agent would run, and the id that it gives."""
    sweep = yaml.safe_load((CONF / "sweep" / "rates_wandb.yml").read_text())
    drawn = {"optimizer.lr": {"value": 0.0004}, "seed": {"value": 1}}
    assert set(drawn) == set(sweep["parameters"])
    made = create_sweep_command_args({"args": drawn})
    words = []
    for word in sweep["command"]:
        words += made.get(word.strip("${}"), [word])
    assert words[:3] == ["${env}", "ganinv", "train"]
    cfg = composed(words[3:])
    check_config(cfg)
    assert (cfg.optimizer.lr, cfg.seed, cfg.name) == (0.0004, 1, "rates")
    assert sweep["metric"]["name"] == f"val/{PSp.monitor}"
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert _given_id() is None
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert _given_id() == "abc"


def test_a_workspace_shows_what_a_run_logs(folder, capsys):
    workspace = build_workspace("me", "ganinv")
    sections = {s.name: s.panels for s in workspace.sections}
    assert list(sections) == ["Losses", "Grids", "Steps", "Speed", "Evaluation"]
    view = workspace._to_model().model_dump_json(by_alias=True)  # what would be sent
    logged = {
        item.key or "/".join(item.nested_key)
        for r in records(folder)
        if r.HasField("history")
        for item in r.history.item
    }
    for name in ("train/total", "val/total", "lr/E", "speed/images_per_sec", "train/grad_norm/E",
                 "val/grid", "trainer/global_step"):  # fmt: skip
        assert any(f"{key}/".startswith(f"{name}/") for key in logged), name
        assert f'"{name}"' in view, name
    assert main(["workspace"]) == 1
    assert "nobody is logged in to W&B; expected a login" in capsys.readouterr().err
