"""Sets from afar, over a real web server that fails on purpose and a real S3 server (moto)."""

import multiprocessing
import os
import re
import shutil
import time

import pytest
import torch

from ganinv.cli.main import main
from ganinv.core.errors import ConfigError, DataError
from ganinv.core.safe.io import sha256_file
from ganinv.dataset import remote
from tests.dataset.server import serving
from tests.dataset.sets import data_of, grey_set


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with train and val, and a cache and no waiting between tries."""
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    remote.fetch_set.cache_clear()
    folder = tmp_path / "served"
    grey_set(folder / "train", [7, 5, 6, 6])
    grey_set(folder / "val", [3, 2])
    return folder


@pytest.fixture
def server(root):
    """The web server over it."""
    with serving(root) as server:
        yield server


def batches(data, count=8):
    stream = iter(data.train_dataloader())
    return [next(stream) for _ in range(count)]


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    keys = all(a["key"] == b["key"] for a, b in pairs)
    return keys and all(torch.equal(a["image"], b["image"]) for a, b in pairs)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_from_a_web_server_is_that_of_the_folder(root, server, workers):
    far = batches(data_of(server.address, num_workers=workers))
    assert same(far, batches(data_of(root)))
    tars = [name for name in server.asked if name.endswith(".tar")]
    assert sorted(tars) == sorted(set(tars)), "each tar was fetched once, by all workers together"
    val = list(data_of(server.address).val_dataloader())
    assert sum(len(batch["key"]) for batch in val) == 5


@pytest.mark.parametrize("fault", [500, 503, 429, "short", "changed", "silence"])
def test_faults_that_pass_are_survived(root, server, fault, monkeypatch, caplog):
    monkeypatch.setattr(remote, "TIMEOUT", 0.5)
    server.faults += [["index.json", fault if fault != "changed" else 500, 2]]
    server.faults += [["offsets.npy", fault, 2], ["000001.tar", fault, 3]]
    assert same(batches(data_of(server.address)), batches(data_of(root)))
    assert "000001.tar" in caplog.text and "try 4 of 8" in caplog.text
    assert not [path for path in remote.cache_folder().rglob("*.partial")]


def test_a_tar_that_stays_away_is_skipped_counted_and_named(root, server):
    server.faults += [["000002.tar", 500, 10**6]]
    seen = batches(data_of(server.address, max_bad_fraction=0.9))
    skipped = [reason for batch in seen for reason in batch.get("skipped", [])]
    assert skipped and all("the server answers 500" in reason for reason in skipped)
    assert server.asked.count("000002.tar") == remote.TRIES  # not again for every image
    with pytest.raises(DataError, match="unreadable images among 24 of .*000002.tar sample"):
        batches(data_of(server.address))


def test_what_will_not_pass_is_not_tried_again(root, server):
    (root / "train" / "000000.tar").unlink()
    seen = batches(data_of(server.address, max_bad_fraction=0.9))
    reasons = [reason for batch in seen for reason in batch.get("skipped", [])]
    assert all("the server answers 404" in reason for reason in reasons) and reasons
    assert server.asked.count("000000.tar") == 1
    with pytest.raises(DataError, match="the set of shards at .*/test cannot be opened: .*404"):
        data_of(server.address).open("test")


def test_the_cache_stays_within_its_bound_and_drops_what_was_used_least_lately(root, server):
    size = max(path.stat().st_size for path in root.glob("train/*.tar"))
    data = data_of(server.address, cache_gib=2.2 * size / 2**30)
    index = data.open("train")
    for shard in (0, 1, 0, 2):
        os.close(index.far.open(index.raw["shards"][shard]))
        time.sleep(0.02)
    assert {path.name for path in index.folder.glob("*.tar")} == {"000000.tar", "000002.tar"}
    far = batches(data, 24)
    assert sum(path.stat().st_size for path in index.folder.glob("*.tar")) <= 2.2 * size
    assert same(far, batches(data_of(root), 24))
    for path in index.folder.glob("*.tar"):
        path.unlink()
    small = data_of(server.address, cache_gib=0.5 * size / 2**30, max_bad_fraction=0.9)
    with pytest.raises(DataError, match=r"more than the whole cache \(dataset.cache_gib="):
        batches(small)


def _open_all(address, results):
    data = data_of(address)
    index = data.open("train")
    for entry in index.raw["shards"]:
        os.close(index.far.open(entry))
    results.put([sha256_file(path) for path in sorted(index.folder.glob("*.tar"))])


def test_several_processes_share_one_cache(root, server):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    jobs = [context.Process(target=_open_all, args=(server.address, results)) for _ in range(4)]
    for job in jobs:
        job.start()
    sums = [results.get(timeout=60) for _ in jobs]
    expected = [sha256_file(path) for path in sorted(root.glob("train/*.tar"))]
    assert all(found == expected for found in sums)
    tars = [name for name in server.asked if name.endswith(".tar")]
    assert sorted(tars) == sorted(path.name for path in root.glob("train/*.tar"))


def test_a_set_that_was_written_again_is_another_set(root, server):
    before = data_of(server.address).open("train").folder
    shutil.rmtree(root / "train")
    grey_set(root / "train", [4, 4])
    remote.fetch_set.cache_clear()
    index = data_of(server.address).open("train")
    assert index.folder != before and len(index) == 8


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://me:word@host/set", "with a user, a password or a token"),
        ("https://host/set?token=hidden", "with a user, a password or a token"),
        ("ftp://host/set", "expected a folder, or http://, https://, s3://"),
    ],
)
def test_addresses_with_secrets_or_of_another_kind_are_refused(address, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        data_of(address)
    assert "word" not in str(refused.value).replace("password", "")
    assert "hidden" not in str(refused.value)


def test_ganinv_verify_reads_a_set_from_afar(root, server, capsys):
    assert main(["verify", server.address]) == 0
    out = capsys.readouterr().out
    assert f"{server.address}/train: 4 tars, 24 images: good" in out
    assert f"{server.address}/val: 2 tars, 5 images: good" in out
    (root / "train" / "000003.tar").unlink()
    assert main(["verify", f"{server.address}/train", "--no-decode"]) == 1
    out = capsys.readouterr().out
    assert "BAD  " in out and "000003.tar: the server answers 404" in out and "1 faults" in out
    assert main(["verify", f"{server.address}/nothing"]) == 1
    assert "nothing cannot be opened" in capsys.readouterr().err


@pytest.fixture
def store(root, bucket):
    """A bucket with the set."""
    remote._s3_client.cache_clear()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            bucket.upload_file(str(path), "faces", f"grey/{path.relative_to(root)}")
    yield bucket
    remote._s3_client.cache_clear()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_from_an_object_store_is_that_of_the_folder(root, store, workers):
    far = batches(data_of("s3://faces/grey", num_workers=workers))
    assert same(far, batches(data_of(root)))


def test_faults_of_an_object_store(root, store, monkeypatch, caplog):
    """It answers 500 for a while; a tar was overwritten; one is gone."""
    real = remote._s3_client(os.getpid())
    failures = iter([500, 503] + [0] * 1000)

    fail = lambda response_dict, **_: _fail(response_dict, failures)  # noqa: E731
    real.meta.events.register("before-parse.s3.GetObject", fail)
    assert same(batches(data_of("s3://faces/grey")), batches(data_of(root)))
    assert "the store answers 500" in caplog.text and "the store answers 503" in caplog.text
    store.put_object(Bucket="faces", Key="grey/val/000000.tar", Body=b"other bytes")
    store.delete_object(Bucket="faces", Key="grey/val/000001.tar")
    val = data_of("s3://faces/grey", max_bad_fraction=0.99)
    with pytest.raises(DataError, match="11 of .* bytes came, 8 times.*NoSuchKey"):
        list(val.val_dataloader())


def _fail(response, failures):
    code = next(failures)
    if code:
        response["status_code"], response["body"] = code, b""
