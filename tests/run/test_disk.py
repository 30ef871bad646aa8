"""Disks that are full, read-only or unreadable: a sentence, and before minutes are spent."""

import errno
import os
import subprocess

import pytest
from PIL import Image

from evaluate import evaluate
from ganinv.cli.main import main
from ganinv.core.errors import ConfigError, RunError
from ganinv.run.disk import check_writable, disk_errors
from tests.processes import can_mount
from tests.runs import composed_evaluate


@pytest.fixture
def disks(tmp_path):
    """(a full one, a read-only one)."""
    full, fixed = tmp_path / "full", tmp_path / "fixed"
    full.mkdir()
    fixed.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", full], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,ro", "none", fixed], check=True)
    (full / "ballast").write_bytes(bytes(64 << 10))
    yield full, fixed
    subprocess.run(["umount", full, fixed], check=True)


@pytest.mark.skipif(not can_mount(), reason="no permission to mount a small disk")
def test_every_command_refuses_such_a_disk_before_it_loads_anything(disks, tmp_path, capsys):
    """The model and the images do not even exist: the disk is looked at first."""
    words = ("No space left on device", "Read-only file system")
    for disk, reason in zip(disks, words, strict=True):
        before = sorted(disk.iterdir())
        for command in (
            ["invert", "no.ckpt", "nothing", "--out", str(disk / "o")],
            ["export", "no.ckpt", "--to", "onnx", "--out", str(disk / "o")],
            ["import", __file__, "--out", str(disk / "o")],
        ):
            assert main(command) == 1
            said = capsys.readouterr().err
            assert reason in said and "ConfigError" in said and "Traceback" not in said, command
        with pytest.raises(ConfigError, match=f"the folder of the report .*{reason}"):
            evaluate(composed_evaluate("checkpoint=no.ckpt", f"output={disk / 'o'}"))
        assert sorted(disk.iterdir()) == before


@pytest.mark.skipif(not can_mount(), reason="no permission to mount a small disk")
def test_images_are_not_written_to_such_a_disk(disks, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (16, 16)).save(photos / "a.png")
    words = ("No space left on device", "Read-only file system")
    for disk, reason in zip(disks, words, strict=True):
        assert main(["shard", str(photos), "--out", str(disk / "set"), "--size", "16"]) == 1
        said = capsys.readouterr().err
        assert reason in said and "DataError" in said and "Traceback" not in said


def test_what_an_ill_disk_does_later_is_a_sentence_too(tmp_path):
    for number in (errno.ENOSPC, errno.EIO, errno.EACCES, errno.ESTALE):
        words = rf"x: {os.strerror(number)}; [\d.]+ MiB free there; expected .*To fix: try again"
        with pytest.raises(RunError, match=words), disk_errors(tmp_path, "try again"):
            raise OSError(number, os.strerror(number), str(tmp_path / "x"))
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path, "try again"):
        open(tmp_path / "none")


def test_an_unreadable_file_is_a_sentence(tmp_path, capsys, monkeypatch):
    def ill(path, *rest):
        raise OSError(errno.EIO, "Input/output error", str(path))

    (tmp_path / "a.ckpt").write_bytes(b"x" * 100)
    monkeypatch.setattr("ganinv.evaluation.open.is_pickle", ill)
    out = str(tmp_path / "o")
    assert main(["export", str(tmp_path / "a.ckpt"), "--to", "onnx", "--out", out]) == 1
    assert "a.ckpt: Input/output error" in capsys.readouterr().err


def test_nothing_is_left_of_a_try(tmp_path):
    check_writable(tmp_path / "a" / "b", "it", "choose another")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="it .*file/b cannot be written: .*; expected a place"):
        check_writable(tmp_path / "file" / "b", "it", "choose another")
    assert (tmp_path / "file").read_text() == ""
