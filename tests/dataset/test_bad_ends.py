"""Sets and databases that something ended badly: a killed writer, a missing index, a damaged LMDB,
a server that chooses names and sizes."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import lmdb
import numpy as np
import pytest
from PIL import Image

from ganinv.cli.main import main
from ganinv.core.errors import DataError
from ganinv.dataset import remote, source
from ganinv.dataset.codec import load
from ganinv.dataset.index import read_index
from ganinv.dataset.shard import write_set
from ganinv.dataset.source import open_source
from tests.dataset.server import serving
from tests.dataset.sets import SIZE, Grey, Plan, grey_set


def test_all_tars_and_no_index(tmp_path, monkeypatch):
    """Killed between the last tar and the index: the same command finishes the set."""
    plan = Plan(images=400, shards=2, make=Grey([200, 200], "png"), size=SIZE, extension="png",
                parameters={"a": 1}, origin={})  # fmt: skip
    finish = "ganinv.dataset.shard._finish"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def killed(*_):
            raise KeyboardInterrupt

        patch.setattr(finish, killed)
        write_set(tmp_path / "set", plan, 2, "test")
    assert len(write_set(tmp_path / "set", plan, 2, "test")) == 400


WRITER = """
    import sys, time
    from pathlib import Path
    from ganinv.dataset.shard import Plan, write_set

    class Slow:
        def __call__(self, number):
            Path(sys.argv[1], f"begun{number}").write_text(str(__import__("os").getpid()))
            time.sleep(600)
            yield

    plan = Plan(images=1000, shards=2, make=Slow(), size=(6, 8), extension="png",
                parameters={}, origin={})
    write_set(Path(sys.argv[1]) / "set", plan, 2, "test")
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks at processes as Linux shows them"
)
def test_writers_end_with_a_killed_parent(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)])
    notes = [tmp_path / f"begun{number}" for number in range(2)]
    wait_until(lambda: all(note.is_file() and note.read_text() for note in notes))
    workers = [int(note.read_text()) for note in notes]
    assert all(map(alive, workers)) and process.pid not in workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(alive, workers)), 20)
    plan = Plan(images=2, shards=1, make=Grey([2], "png"), size=SIZE, extension="png",
                parameters={"b": 1}, origin={})  # fmt: skip
    assert len(write_set(tmp_path / "set", plan, 1, "test")) == 2  # the lock is free


def test_offsets_that_are_a_pipe(tmp_path):
    index = grey_set(tmp_path / "set", [3])
    (index.folder / "offsets.npy").unlink()
    os.mkfifo(index.folder / "offsets.npy")
    with pytest.raises(DataError, match=r"no file offsets\.npy"):
        read_index(index.folder)


def png(side=8):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def database(path, count=50):
    with lmdb.open(str(path), map_size=1 << 24) as base, base.begin(write=True) as transaction:
        for number in range(count):
            transaction.put(f"key{number:04d}".encode(), png(), append=True)
    return path


def test_a_database_is_read_in_a_process_of_its_own(tmp_path):
    found = open_source(database(tmp_path / "good"))
    assert [name for name, _ in found.items()] == [f"key{n:04d}" for n in range(50)]
    assert found.read("key0007") == png()
    with pytest.raises(ValueError, match="nothing under this key"):
        found.read("gone")


@pytest.mark.parametrize("cut", [0, 100, 4096, 8192, 20_000])
def test_a_damaged_database_ends_in_a_sentence(tmp_path, cut):
    file = database(tmp_path / "base") / "data.mdb"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match="base cannot be read .*copy it again"):  # noqa: PT012
        for name, _ in (found := open_source(file.parent)).items():
            found.read(name)


def test_pages_that_are_noise(tmp_path):
    file = database(tmp_path / "base") / "data.mdb"
    data = bytearray(file.read_bytes())
    data[8192:] = bytes(np.random.default_rng(0).integers(0, 256, len(data) - 8192, np.uint8))
    file.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        open_source(file.parent).items()


def test_without_the_package_lmdb(tmp_path, monkeypatch):
    database(tmp_path / "base")
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"without the package lmdb.*ganinv\[lmdb\]"):
        open_source(tmp_path / "base").items()


@pytest.mark.parametrize("name", ["../../x.tar", "/x.tar", "x", ".x.tar", "a/b.tar", "x\n.tar"])
def test_a_server_names_no_files(tmp_path, monkeypatch, name, capsys):
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "deep/cache"))
    index = grey_set(tmp_path / "served/set", [3])
    raw = json.loads((index.folder / "index.json").read_text())
    raw["shards"][0]["name"] = name
    (index.folder / "index.json").write_text(json.dumps(raw))
    with serving(tmp_path / "served") as server:
        assert main(["verify", f"{server.address}/set"]) == 1
    assert "a shard's name" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".lock", ".partial")]


def test_a_server_sends_no_more_than_the_index_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "MAX_INDEX", 100)
    grey_set(tmp_path / "served/set", [3])
    with serving(tmp_path / "served") as server:
        assert main(["verify", f"{server.address}/set"]) == 1
    assert "bytes announced, at most 100 expected" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache2"))
    with open(tmp_path / "served/set/000000.tar", "ab") as file:
        file.write(b"more")
    with serving(tmp_path / "served") as server:
        assert main(["verify", f"{server.address}/set"]) == 1
    assert "bytes announced, at most" in capsys.readouterr().out


def test_a_server_sends_nobody_to_ftp(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache"))
    grey_set(tmp_path / "served/set", [3])
    with serving(tmp_path / "served") as server:
        server.faults.append(["index.json", "ftp://127.0.0.1/index.json", 9])
        assert main(["verify", f"{server.address}/set"]) == 1
    words = "sent on to 'ftp://127.0.0.1/index.json', which is no web"
    assert words in capsys.readouterr().err


def test_a_server_may_not_trickle(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "GRACE", 0.2)
    monkeypatch.setattr(remote, "TRIES", 1)
    grey_set(tmp_path / "served/set", [3])
    with serving(tmp_path / "served") as server:
        server.faults.append(["index.json", "trickle", 9])
        assert main(["verify", f"{server.address}/set"]) == 1
    assert "too slow" in capsys.readouterr().err


def test_large_images_are_refused_ahead_of_decoding():
    buffer = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="13,000 x 13,000 px, larger than 64 megapixels; reduce"):
        load(buffer.getvalue())
