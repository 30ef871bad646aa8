"""What a run tells: W&B and its id, secrets that stay out of everything, `ganinv runs`."""

import csv
import json
import os
import re
import shlex
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ganinv.cli import runs
from ganinv.cli.main import main
from ganinv.run.naming import in_use
from ganinv.run.status import KINDS, look_at_state, processes, read_state, update_state
from tests.processes import launch_ready
from tests.runs import plain_overrides

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIexampleSECRETkeyEXAMPLE",
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE01",
}


def test_a_resumed_run_is_the_same_wandb_run_and_no_secret_is_written(
    assets, tmp_path, monkeypatch
):
    """Offline: both parts carry the id that the run's folder keeps, though it was moved."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    arguments = [a for a in plain_overrides("e4e", *assets) if a != "logger=csv"]
    arguments += ["logger.offline=true", "dataset.batch_size=2"]
    first = tmp_path / "first"
    said = launch_ready([*arguments, "trainer.max_kimg=0.008"], first, ranks=2)
    moved = first.rename(tmp_path / "moved")
    said += launch_ready([*arguments, "resume=auto"], moved, ranks=2)
    number = read_state(moved)["wandb_id"]
    folders = [path.name for path in (moved / "wandb").glob("offline-run-*")]
    assert len(folders) == 2 and all(name.endswith(f"-{number}") for name in folders)
    for path in tmp_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [n for n, value in SECRETS.items() if value.encode() in content], path
    assert not [name for name, value in SECRETS.items() if value in said]
    with open(moved / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["train/total"]]
    told = {name for row in rows for name, value in row.items() if value}
    assert {"train/grad_norm/E", "train/grad_norm/D", "lr/E", "lr/D", "train/stage"} <= told
    assert {"speed/images_per_sec", "speed/images_per_sec_per_rank"} <= told
    assert {"speed/data_wait_share", "speed/rank_wait_share", "speed/slowest_rank"} <= told
    total, per_rank = (f"speed/images_per_sec{end}" for end in ("", "_per_rank"))
    assert all(abs(float(row[total]) - 2 * float(row[per_rank])) < 1e-6 for row in rows)
    assert [float(row["train/stage"]) for row in rows][0] == 0
    assert float(rows[-1]["train/stage"]) > 0
    assert all(0 <= float(row["speed/rank_wait_share"]) <= 1 for row in rows)


def test_the_table_of_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    common = {"max_kimg": 16, "host": os.uname().nodename, "wandb_id": "a", "monitor": "total"}
    common |= {"processes": processes(), "born": None}
    common |= {"command": "python train.py 'name=a b' resume=auto run_dir=old", "kimg": 4.0}
    common["best"] = {"value": 0.25, "kimg": 2.0}
    for name, changes in {
        "alive": {"state": "running", "pid": os.getpid()},
        "killed": {"state": "running", "pid": 2**22 + 1},
        "stopped": {"state": "interrupted", "pid": 1},
        "broken": {"state": "failed", "pid": 1, "reason": "RunError: rank 1 was killed"},
        "done": {"state": "finished", "pid": 1},
        "far": {"state": "running", "pid": 1, "processes": "elsewhere"},
    }.items():
        (tmp_path / name).mkdir()
        update_state(tmp_path / name, **(common | changes))
    far = tmp_path / "far" / "state.json"
    far.write_text(json.dumps(json.loads(far.read_text()) | {"time": time.time() - 3600}))
    assert main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    states = {"alive": "running", "killed": "dead", "stopped": "interrupted", "broken": "failed"}
    for name, state in (states | {"done": "finished", "far": "dead"}).items():
        assert re.search(rf"{name} +{state} +4.00 of 16 +total 0.25 +2.00 ", out), name
    command = f"python train.py 'name=a b' run_dir={tmp_path / 'killed'} resume=auto"
    assert command in out and "failed: RunError: rank 1 was killed" in out
    assert f"run_dir={tmp_path / 'done'}" not in out and f"run_dir={tmp_path / 'alive'}" not in out
    assert main(["runs", str(tmp_path / "none")]) == 1
    assert "expected a folder of runs" in capsys.readouterr().err


ODD = [None, True, -1, 0, 1.5, float("nan"), 1e300, 10**30, "", "x\x1b]0;owned\x07", "[/red]",
       [], [1], "\ud800", {}, {"value": "x"}, {"value": 1, "kimg": [2]}, "\u202e",
       "a" * 5000]  # fmt: skip


def _run(folder, **changes):
    state = {"state": "interrupted", "pid": 1, "processes": "elsewhere", "born": None, "time": 1.0}
    state |= {"max_kimg": 16, "kimg": 4.0, "command": "python train.py", "monitor": "total"}
    state |= {"best": {"value": 0.25, "kimg": 2.0}, "reason": None, "job": "j", "host": "h"}
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps(state | changes))
    return state


def test_one_odd_state_neither_hides_the_others_nor_steers_the_terminal(tmp_path, capsys):
    """Every entry in turn is of every wrong kind, beside a good run; so are whole files."""
    names = list(_run(tmp_path / "good"))
    for name in [*names, "started_in", "wandb_id", "ranks", "skipped_steps", "ganinv"]:
        for number, value in enumerate(ODD):
            _run(tmp_path / f"{name}-{number}", **{name: value})
    texts = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"state": "running"}', b"{}"]
    texts += [b'{"pid": ' + b"9" * 5000 + b"}", b" " * (2 << 20)]
    for number, text in enumerate(texts):
        (tmp_path / f"file-{number}").mkdir()
        (tmp_path / f"file-{number}" / "state.json").write_bytes(text)
    (tmp_path / "folder" / "state.json").mkdir(parents=True)
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "[bold]x\x1b[2J").mkdir()
    (tmp_path / "[bold]x\x1b[2J" / "state.json").write_text("{}")
    assert main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"good +interrupted +4.00 of 16 +total 0.25", out)
    assert not [c for c in out if ord(c) < 32 and c != "\n"] and "\u202e" not in out
    assert re.search(r"pid-3 +interrupted", out) and re.search(r"pid-8 +unreadable", out)
    assert "state.json: an odd entry 'best'" in out and "[bold]x\\x1b[2J" in out
    assert "file-5:\n  state.json: not JSON" in out


@given(
    st.dictionaries(
        st.sampled_from(sorted(KINDS)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        ),
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_state_ends_what_reads_it(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    (folder / "state.json").write_text(json.dumps(state))
    found, fault = look_at_state(folder)
    assert fault is None or found == {}
    runs.cells_of(found)
    runs.resume_command(folder, found)
    in_use(found)


@pytest.mark.parametrize(
    "name", ["my runs", "a=b", "a,b", "a(1)", "it's", "${x}", "[x]", "ü#!", "\\"]
)
@pytest.mark.parametrize("start", ["python train.py", "ganinv train"])
def test_the_command_to_go_on_can_be_pasted_from_any_folder(tmp_path, name, start):
    """Read by a shell's rules and by Hydra: the folder arrives as it is, and so does the rest."""
    folder = tmp_path / name
    _run(folder, command=f"{start} 'name=a b' resume=x run_dir=old method=e4e")
    words = shlex.split(runs.resume_command(folder, read_state(folder)))
    assert words[:4] == [*start.split(), "name=a b", "method=e4e"]
    parsed = OverridesParser.create().parse_overrides(words[2:])
    values = OmegaConf.create({p.key_or_group: p.value() for p in parsed})
    assert values.run_dir == str(folder) and values.resume == "auto" and values.name == "a b"


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf ~",
        "python -c 'x'",
        "python evil.py",
        "python train.py 'a\x1b'",
        "'",
        "",
        "ganinv export x",
    ],
)
def test_only_a_training_s_command_is_handed_on(tmp_path, command):
    _run(tmp_path / "run", command=command)
    said = runs.resume_command(tmp_path / "run", read_state(tmp_path / "run"))
    assert said.startswith("(started by another program) python train.py ... run_dir=")
