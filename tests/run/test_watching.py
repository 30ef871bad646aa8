"""What a run tells: W&B and its id, secrets that stay out of everything, `ganinv runs`."""

import csv
import json
import os
import re
import time

from ganinv.cli.main import main
from ganinv.run.status import processes, read_state, update_state
from tests.processes import launch_ready
from tests.runs import overrides

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
    arguments = [a for a in overrides("e4e", *assets) if a != "logger=csv"]
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
