"""Numbered batches: the same files from any processes, after any stop; refused where they are not
this command's."""

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ganinv.core.errors import ConfigError, DataError, RunError
from ganinv.evaluation import work as work_module
from ganinv.evaluation.ranks import Ranks, carry_out, ranks_of
from ganinv.evaluation.work import Work, cut
from tests.processes import server

ALONE = Ranks(0, 1, 0, external=False)
SETTINGS = {"command": "toy", "seed": 1}


@dataclass(frozen=True)
class Toy:
    """Squares of numbers; what is wrong with a batch is told by its number."""

    pause: float = 0.0
    fault: str = ""
    at: int = -1

    def open(self, ranks):
        return self.compute

    def compute(self, work, numbers):
        for number in numbers:
            time.sleep(self.pause)
            if number == self.at:
                self.fail()
            images = list(cut(10, 3)[number])
            yield number, {"square": torch.tensor(images) ** 2}, {"keys": images}

    def fail(self):
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"user": DataError("a broken image"), "own": KeyError("code")}[self.fault]


def toy_work(folder, **settings):
    return Work(folder, settings=SETTINGS | settings, sizes=[3, 3, 3, 1])


def done(folder, ranks=ALONE, job=Toy()):
    work = toy_work(folder)
    carry_out(work, work.begin(), job, ranks, job.open(ranks))
    return work


def joined(work):
    parts = list(work.parts())
    return torch.cat([tensors["square"] for tensors, _ in parts]).tolist()


def files(work):
    return {path.name: path.read_bytes() for path in work.parts_folder.glob("*.safetensors")}


def test_processes_change_nothing(tmp_path):
    one, three = done(tmp_path / "1"), done(tmp_path / "3", Ranks(0, 3, 0, external=False))
    assert files(one) == files(three) and len(files(one)) == 4
    assert joined(one) == joined(three) == [i * i for i in range(10)]
    one.end()
    assert list((tmp_path / "1").iterdir()) == []


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_and_started_again_is_as_if_it_was_not(tmp_path, ranks):
    """SIGKILL between two batches; its helpers end with it; the batches that are there stay."""
    folder, given = tmp_path / "killed", (Ranks(0, ranks, 0, external=False), Toy(pause=0.4))
    process = server.Process(target=done, args=(tmp_path / "killed", *given))
    process.start()
    until = time.time() + 60
    while not list(folder.glob(".parts/0*.safetensors")) and time.time() < until:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.join()
    while any(_runs(child) for child in children):
        assert time.time() < until, "a helper outlived the process that started it"
        time.sleep(0.05)
    work = toy_work(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob(".parts/0*.safetensors")}
    assert 0 < len(before) < 4
    assert len(work.begin()) == 4 - len(before)
    again = done(folder)
    assert joined(again) == [i * i for i in range(10)]
    assert files(again) == files(done(tmp_path / "whole"))
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_part_that_is_cut_short_or_of_other_settings_is_computed_again(tmp_path):
    work = done(tmp_path / "o")
    whole = files(work)
    work.path(1).write_bytes(whole[work.path(1).name][:-5])
    work.path(2).write_bytes(b"")
    other = toy_work(tmp_path / "other", seed=2)
    other.begin()
    other.save(3, {"square": torch.zeros(1)}, {})
    other.path(3).rename(work.path(3))
    (work.parts_folder / ".00000001.safetensors.k3x_9abc").write_bytes(b"half of a")
    images = work.folder / "images" / "sub"
    images.mkdir(parents=True)
    for name in (".a b.png.k3x_9abc", ".DS_Store", ".nfs000001", "a.png.k3x_9abc"):
        (images / name).write_bytes(b"half of a")
    assert toy_work(tmp_path / "o").begin() == [1, 2, 3]
    assert not list(work.parts_folder.glob(".0*"))
    left = {path.name for path in images.iterdir()}
    assert left == {".DS_Store", ".nfs000001", "a.png.k3x_9abc"}
    assert files(done(tmp_path / "o")) == whole


def test_folders_of_others_are_refused(tmp_path, monkeypatch):
    def refused(words, work):
        with pytest.raises(ConfigError, match=words):
            work.begin()

    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("")
    refused("used, which holds other files; expected a new or empty folder",
            toy_work(tmp_path / "used"))  # fmt: skip
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["thesis.tex"]
    toy_work(tmp_path / "o").begin()
    refused("begun with other seed; expected the same command, which goes on",
            toy_work(tmp_path / "o", seed=2))  # fmt: skip
    refused("begun with other seed, size", toy_work(tmp_path / "o", seed=2, size=64))
    refused("begun by toy; expected a new folder", toy_work(tmp_path / "o", command="invert"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        toy_work(tmp_path / "file" / "o").begin()
    settings = tmp_path / "o" / ".parts" / "settings.json"
    for odd in ("[]", "{", "[" * 100_000, '{"command": ["toy"]}', "\0", "null"):
        settings.write_text(odd)
        refused("begun by", toy_work(tmp_path / "o"))


def test_a_folder_in_which_a_process_works_now_is_refused(tmp_path):
    work = toy_work(tmp_path / "o")
    work.begin()
    file = work.parts_folder / "process.json"
    theirs = json.loads(file.read_text())
    parent = Path(f"/proc/{os.getppid()}/stat").read_text().rsplit(")", 1)[1].split()
    file.write_text(json.dumps(theirs | {"pid": os.getppid(), "born": int(parent[19])}))
    with pytest.raises(ConfigError, match=rf"in which process {os.getppid()} works now"):
        toy_work(tmp_path / "o").begin()
    for odd in ({"pid": 2**22 + 1}, {"pid": "x"}, {"processes": 3}, {"born": None}):
        file.write_text(json.dumps(theirs | odd))
        assert toy_work(tmp_path / "o").begin() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("kill", RunError, r"rank 1 \(process \d+\) was killed.*the same command goes on"),
        ("user", DataError, "a broken image"),
        ("own", RunError, r"rank 1 \(process \d+\) failed: KeyError: 'code'"),
    ],
)
def test_what_ends_another_process_is_told(tmp_path, fault, error, words):
    with pytest.raises(error, match=words):
        done(tmp_path / "o", Ranks(0, 2, 0, external=False), Toy(fault=fault, at=3))
    done(tmp_path / "o")


def test_a_full_disk_is_told_and_what_is_finished_stays(tmp_path, monkeypatch):
    def full(path, *arguments):
        if path.name.startswith("00000002"):
            raise OSError(28, "No space left on device", str(path))
        return write(path, *arguments)

    write = work_module.write_safetensors
    monkeypatch.setattr(work_module, "write_safetensors", full)
    words = (
        r"00000002.safetensors: No space left on device; \d+.\d MiB free there.*same command: fin"
    )
    with pytest.raises(RunError, match=words):
        done(tmp_path / "o")
    monkeypatch.undo()
    assert toy_work(tmp_path / "o").begin() == [2, 3]


def test_batches_that_another_machine_wrote_elsewhere_are_missed(tmp_path):
    work = toy_work(tmp_path / "o")
    work.begin()
    with pytest.raises(RunError, match=r"4 of 4 batches \(0, 1, 2, 3\) are not.*share this folder"):
        list(work.parts())


def test_devices_are_a_launcher_s_or_asked_for():
    assert ranks_of(None) == ALONE and ranks_of(3).size == 3
    with pytest.raises(ConfigError, match="num_nodes=2.*expected torchrun or srun"):
        ranks_of(2, 2)
    with pytest.raises(ConfigError, match="num_nodes=0; expected a number of machines"):
        ranks_of(1, 0)
    for odd in (0, -2, "two", 1.5, True):
        with pytest.raises(ConfigError, match=rf"devices={odd}; expected a number of processes"):
            ranks_of(odd)
