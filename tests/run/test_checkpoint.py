"""A checkpoint is read once from the disk, however large and by however many ranks it is loaded."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch

from ganinv.cli._fitting import check_resumed
from ganinv.core.errors import RunError, WeightsError
from ganinv.run.checkpoint import InMemory, hold, newest_sound
from ganinv.run.folder import Run
from tests.faults.sitecustomize import note_reads
from tests.runs import plain_overrides, run


def bytes_read() -> int:
    """By this process so far, from files and pipes."""
    words = Path("/proc/self/io").read_text().split()
    return int(words[words.index("rchar:") + 1])


@pytest.fixture
def folder(tmp_path) -> Path:
    weight = torch.arange(4 << 20, dtype=torch.float32)
    state = {"E.weight": weight, "E.bias": weight[7:9]}
    torch.save({"ganinv": {"version": "1"}, "state_dict": state}, tmp_path / "last.ckpt")
    return tmp_path


def test_it_is_read_once_to_be_checked_outlined_and_loaded(folder) -> None:
    size, before = (folder / "last.ckpt").stat().st_size, bytes_read()
    found, damaged = newest_sound(folder)
    assert found is not None and not damaged
    outline = found.outline()["state_dict"]
    assert outline["E.weight"].is_meta and outline["E.weight"].shape == (4 << 20,)
    loaded = found.read()
    assert size <= bytes_read() - before < size + (1 << 20)
    assert loaded["ganinv"] == {"version": "1"}
    assert torch.equal(loaded["state_dict"]["E.bias"], torch.tensor([7.0, 8.0]))


def test_an_outline_reads_no_number(folder) -> None:
    found = hold(folder / "last.ckpt")
    start = found.content.index(torch.arange(4, dtype=torch.float32).numpy().tobytes())
    found.content[start + 4] ^= 1  # in memory, once its checksums were compared
    assert found.outline()["state_dict"]["E.weight"].is_meta
    with pytest.raises(WeightsError, match="a checksum does not fit"):
        found.read()


def test_a_damaged_one_is_named_and_the_one_before_is_read(folder) -> None:
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    content = last.read_bytes()
    previous.write_bytes(content)
    last.write_bytes(content[: len(content) // 2])
    found, damaged = newest_sound(folder)
    assert found is not None and found.path == previous and bytes(found.content) == content
    assert damaged[0][0] == last and "cut short" in damaged[0][1]
    last.write_bytes(content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
    with pytest.raises(WeightsError, match="is damaged: the checksum of .* does not fit"):
        hold(last)


def test_memory_is_read_as_a_file_is(tmp_path) -> None:
    content = bytes(range(100))
    (tmp_path / "file").write_bytes(content)
    with open(tmp_path / "file", "rb") as file:
        for each in (file, InMemory(bytearray(content))):
            assert each.seek(-10, io.SEEK_END) == 90 and each.read(4) == content[90:94]
            assert each.seek(2, io.SEEK_CUR) == 96 and each.read() == content[96:]
            assert each.seek(200) == 200 and each.read(5) == b"" and each.tell() == 200
            with pytest.raises(OSError, match="Invalid argument"):
                each.seek(-101, io.SEEK_END)


def test_a_resume_opens_its_checkpoint_once(assets, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("GANINV_RUN_DIR", raising=False)
    words = [*plain_overrides("psp", *assets), f"run_dir={tmp_path / 'run'}"]
    run([*words, "trainer.max_kimg=0.008"])
    monkeypatch.setattr("builtins.open", open)  # put back when the test ends
    note_reads(tmp_path / "reads")
    run([*words, "resume=auto", "trainer.max_kimg=0.012"])
    assert (tmp_path / "reads").read_text() == f"{os.environ.get('RANK', 0)} last.ckpt\n"


def test_rank_0_says_what_does_not_fit(folder) -> None:
    class Other:
        def check_checkpoint(self, checkpoint) -> None:
            assert checkpoint["state_dict"]["E.weight"].is_meta
            raise RunError("of another network")

    resumed = Run(folder, folder / "last.ckpt", "id", {}, hold(folder / "last.ckpt"))
    with pytest.raises(RunError, match="of another network"):
        check_resumed(resumed, Other())
