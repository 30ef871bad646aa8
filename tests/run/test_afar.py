"""Whole runs whose folder is an address: trained, stopped, gone on with elsewhere, opened there.

memory:// stands for any place of fsspec's; S3 is a real server (moto) that fails on purpose.
"""

import json
import os
import shutil
import signal

import boto3
import pytest

from evaluate import evaluate
from ganinv.cli.main import main
from ganinv.cli.train import run as train_command
from ganinv.core.errors import ConfigError
from ganinv.core.safe.io import sha256_file
from ganinv.method.psp import PSp
from ganinv.run.checkpoint import read_checkpoint
from ganinv.run.folder import ENVIRONMENT
from ganinv.run.storage import s3
from ganinv.run.storage.fetch import fetched
from ganinv.run.storage.open import open_storage
from tests.processes import launch_ready
from tests.run.places import Faulty, in_no_time
from tests.runs import composed, composed_evaluate, differences, plain_overrides, run

RUNS = "memory://runs"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    in_no_time(monkeypatch, every=0.2)


@pytest.fixture
def words(assets, tmp_path):
    """A run of seconds, written to a scratch folder of the test's own."""
    return [*plain_overrides("psp", *assets), f"scratch={tmp_path / 'scratch'}"]


def stopped_after(steps, monkeypatch):
    """SIGTERM in that step."""
    step, seen = PSp.step, []

    def interrupted(self, x, batch):
        step(self, x, batch)
        seen.append(1)
        if len(seen) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PSp, "step", interrupted)


def test_a_run_goes_on_on_a_machine_with_an_empty_disk(words, tmp_path, monkeypatch, capsys):
    """Bit for bit; it is listed, evaluated and exported from where it is kept."""
    stopped_after(5, monkeypatch)
    run([*words, f"runs={RUNS}"])
    place = open_storage(RUNS, "runs")
    (name,) = {file.split("/")[0] for file in place.files()}
    address, out = f"{RUNS}/{name}", capsys.readouterr().out
    first = tmp_path / "scratch" / "memory" / "runs" / name
    assert f"{address}: written to {first} first" in out and f"All of it is in {address}" in out
    assert f"resume={address}/checkpoints/last.ckpt" in out
    there = {file.partition("/")[2] for file in place.files()}
    assert {"config.yaml", "state.json", "metrics.csv", "logs/rank0.log"} <= there
    assert {"checkpoints/last.ckpt", "checkpoints/best.ckpt", "grids/000000016.png"} <= there
    assert not {"finished", "owner.json"} & there
    assert not (first / "checkpoints" / "previous.ckpt").exists()
    assert main(["runs", RUNS]) == 0
    listed = capsys.readouterr().out
    assert f"run_dir={address}" in listed and "interrupted" in listed
    shutil.rmtree(tmp_path / "scratch")
    os.environ.pop(ENVIRONMENT, None)
    run([*words, f"runs={RUNS}", "resume=auto"])
    out = capsys.readouterr().out
    assert f"resume=auto: continuing {address}" in out and f"Done: 0.02 kimg in {address}" in out
    assert f"evaluate.py checkpoint={address}/checkpoints/best.ckpt" in out
    assert {file.split("/")[0] for file in place.files()} == {name}
    steps = place.read(f"{name}/metrics.csv", 1 << 20).decode().splitlines()[1:]
    assert {int(line.split(",")[0]) for line in steps} == {4, 8, 12, 16, 20, 24}
    assert f"{name}/finished" in place.files() and not list(first.glob("checkpoints/*.ckpt"))
    os.environ.pop(ENVIRONMENT, None)
    run([*words, f"run_dir={tmp_path / 'whole'}"])
    whole = read_checkpoint(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    last = read_checkpoint(fetched(f"{address}/checkpoints/last.ckpt"))
    for entry in ("state_dict", "optimizer_states", "images_seen"):
        assert not differences(whole[entry], last[entry])
    ranking = json.loads(place.read(f"{name}/checkpoints/best.json", 999))
    best = sha256_file(fetched(f"{address}/checkpoints/{next(iter(ranking))}"))
    assert sha256_file(fetched(f"{address}/checkpoints/best.ckpt")) == best
    _opens(f"{address}/checkpoints/best.ckpt", name, tmp_path, monkeypatch, capsys)


def _opens(checkpoint, name, tmp_path, monkeypatch, capsys):
    """What takes a checkpoint takes its address."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "exported.safetensors"
    assert main(["export", checkpoint, "--to", "safetensors", "--out", str(out)]) == 0
    evaluate(composed_evaluate(f"checkpoint={checkpoint}", "metric=[distortion]", "limit=2"))
    (report,) = tmp_path.glob(f"evaluation/{name}/*/metrics.json")
    assert json.loads(report.read_text())["checkpoint"] == checkpoint
    capsys.readouterr()
    photos, codes = report.parent, tmp_path / "codes"
    assert main(["invert", checkpoint, str(photos), "--out", str(codes)]) == 0
    assert capsys.readouterr().out.startswith(f"{checkpoint}: GradualStyleEncoder trained by PSp")


def test_what_cannot_be_is_refused_before_anything_is_loaded(words, tmp_path, monkeypatch):
    place = open_storage(RUNS, "runs")
    place.write("one/checkpoints/last.ckpt", b"x")
    for given, said in (
        ([f"run_dir={RUNS}/one"], "run_dir=memory://runs/one, which already holds checkpoints"),
        (["run_dir=memory://one"], "expected the address of a run's own folder"),
        (["resume=memory://runs/last.ckpt"], "expected a checkpoint in a run's folder: s3://buck"),
        ([f"runs={RUNS}", "resume=here.ckpt"], r"add run_dir=memory://runs/NAME, or leave runs ou"),
        ([f"runs={RUNS}", f"scratch={__file__}/x"], "the scratch folder .*cannot be written"),
        (["runs=s3://me:word@bucket/runs"], "a password or a token in it"),
    ):
        os.environ.pop(ENVIRONMENT, None)
        with pytest.raises(ConfigError, match=said):
            run([*words, "generator.weights=/nowhere.safetensors", *given])
    assert list(place.files()) == ["one/checkpoints/last.ckpt"]


def test_a_run_whose_end_cannot_be_copied_trains_to_its_end_and_exits_with_a_sentence(
    words, tmp_path, monkeypatch, capsys
):
    """The store fails from the first copy on; the same command goes on when it is well again."""
    faults = {"upload": 10**6}
    for module in ("afar", "folder"):
        monkeypatch.setattr(f"ganinv.run.{module}.open_storage", lambda at, _: Faulty(at, faults))
    with pytest.raises(SystemExit) as ended:
        train_command(composed([*words, f"runs={RUNS}", "trainer.max_kimg=0.008"]))
    said, out = str(ended.value), capsys.readouterr().out
    assert "could not be copied to memory://runs/2" in said and "RunError" in said
    assert "Done: 0.01 kimg" in out
    address = said.split("run_dir=")[1].split()[0]
    (folder,) = (tmp_path / "scratch" / "memory" / "runs").iterdir()
    assert f"they are whole in {folder}" in said and address.endswith(folder.name)
    assert main(["runs", str(folder.parent)]) == 0
    listed = capsys.readouterr().out
    assert f"wait to be copied to {address} since" in listed and "the store answers 503" in listed
    faults.clear()
    os.environ.pop(ENVIRONMENT, None)
    run([*words, "trainer.max_kimg=0.008", f"run_dir={address}", "resume=auto"])
    assert "finished" in open_storage(address, "runs").files()


@pytest.mark.ddp
@pytest.mark.nightly
def test_two_ranks_go_on_from_what_a_killed_run_has_copied(assets, tmp_path):
    """kill -9 of all, the disk emptied; owner.json still says that they live, until it is old."""
    kept, scratch = tmp_path / "kept", tmp_path / "scratch"
    given = [*plain_overrides("psp", *assets), "dataset.batch_size=2", f"run_dir=file://{kept}/run"]
    given += [f"scratch={scratch}", "trainer.val_every_kimg=1", "resume=auto"]
    launch_ready([*given, "trainer.max_kimg=0.016"], tmp_path / "first", 0, ranks=2)
    assert (kept / "run" / "finished").exists()
    shutil.rmtree(scratch)
    launch_ready(given, tmp_path / "second", None, "kill:1:20", ranks=2)
    said = launch_ready(given, tmp_path / "third", 0, ranks=2)
    assert f"resume=auto: continuing file://{kept}/run" in said
    last = read_checkpoint(kept / "run" / "checkpoints" / "last.ckpt")
    assert last["images_seen"] == 24 and not (kept / "run" / "owner.json").exists()


# ------------------------------------------------------------------ S3


@pytest.fixture
def store(bucket, monkeypatch):
    """An empty bucket, asked once."""
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    s3._client.cache_clear()
    yield bucket
    s3._client.cache_clear()


def fail(client, operation, times):
    """The store answers 500 to the next calls of an operation."""
    left = [times]

    def answer(response_dict, **_):
        left[0] -= 1
        if left[0] >= 0:
            response_dict["status_code"], response_dict["body"] = 500, b""

    client.meta.events.register(f"before-parse.s3.{operation}", answer)
    return left


def test_a_run_is_kept_in_s3_and_goes_on_from_there(store, words, tmp_path, monkeypatch, caplog):
    """Through 500s while it is copied and fetched."""
    failing = fail(s3.client(), "PutObject", 0)
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        interrupted = PSp.step

        def and_the_store_fails(self, x, batch):
            failing[0] = 3
            interrupted(self, x, batch)

        patch.setattr(PSp, "step", and_the_store_fails)
        run([*words, "runs=s3://faces/runs", "trainer.val_every_kimg=1"])
    assert "the store answers 500" in caplog.text and "training goes on" in caplog.text
    place = open_storage("s3://faces/runs", "runs")
    (name,) = {file.split("/")[0] for file in place.files()}
    shutil.rmtree(tmp_path / "scratch")
    os.environ.pop(ENVIRONMENT, None)
    fail(s3.client(), "HeadObject", 2)
    address = f"s3://faces/runs/{name}"
    run([*words, f"resume={address}/checkpoints/last.ckpt", "trainer.val_every_kimg=1"])
    assert place.read(f"{name}/finished", 9) == b""
    assert read_checkpoint(fetched(f"{address}/checkpoints/last.ckpt"))["images_seen"] == 24
    previous = fetched(f"{address}/checkpoints/previous.ckpt")  # copied by the store
    assert read_checkpoint(previous)["images_seen"] == 16


def test_a_store_that_cannot_be_used_is_refused_first(store, words, monkeypatch):
    def refused(said, *given):
        os.environ.pop(ENVIRONMENT, None)
        with pytest.raises(ConfigError, match=said) as error:
            run([*words, "generator.weights=/nowhere.safetensors", *given])
        assert "To fix: check the address and the keys" in str(error.value)

    refused(
        "s3://none/runs cannot be used: the store answers 404 NoSuchBucket", "runs=s3://none/runs"
    )
    fail(s3.client(), "PutObject", 0)
    deny = lambda response_dict, **_: response_dict.update(status_code=403, body=DENIED)  # noqa: E731
    s3.client().meta.events.register("before-parse.s3.PutObject", deny)
    refused("cannot be used: the store answers 403 AccessDenied", "runs=s3://faces/runs")
    s3._client.cache_clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    refused("cannot be used: .*Unable to locate credentials", "runs=s3://faces/runs")
    assert main(["runs", "s3://faces/runs"]) == 1


DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
