"""Where a run is kept that is no folder of this machine: the places, the copying, the lock."""

import json
import time

import pytest

from ganinv.core.errors import ConfigError, RunError, WeightsError, WeightsMissing
from ganinv.run import afar, mirror
from ganinv.run.checkpoint import LAST
from ganinv.run.ledger import NAME, Ledger
from ganinv.run.mirror import Mirror, uploading
from ganinv.run.status import read_state, update_state
from ganinv.run.storage import fetch
from ganinv.run.storage.base import NotThere, StorageFault, StorageRefusal
from ganinv.run.storage.fetch import fetched
from ganinv.run.storage.open import open_storage
from tests.run.places import Faulty, in_no_time, write_checkpoint

CHECKPOINTS = "checkpoints"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    in_no_time(monkeypatch)


@pytest.fixture
def folder(tmp_path):
    """A run's folder of this machine, with a state and one checkpoint."""
    run = tmp_path / "scratch" / "run"
    write_checkpoint(run / CHECKPOINTS / LAST, 1)
    update_state(run, state="running", name="psp", job="mine")
    return run


def wait_until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------ places


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_place_keeps_files(scheme, tmp_path):
    place = open_storage(f"{scheme}://{tmp_path / 'kept'}", "runs")
    source, target = tmp_path / "a", tmp_path / "b" / "a"
    source.write_bytes(b"x" * 1000)
    assert place.files() == {}
    run = place.inside("one")
    run.upload(source, "checkpoints/a")
    run.write("state.json", b"{}")
    assert {name: entry.bytes for name, entry in place.files().items()} == {
        "one/checkpoints/a": 1000, "one/state.json": 2,
    }  # fmt: skip
    assert list(run.files("checkpoints/")) == ["checkpoints/a"]
    assert run.read("checkpoints/a", 10) == b"x" * 11  # one more tells that it is longer
    before = run.entry("state.json")
    assert run.entry("state.json") == before == place.files()["one/state.json"]
    run.write("state.json", b"[]")
    assert run.entry("state.json").mark != before.mark and run.read("state.json", 9) == b"[]"
    run.copy("checkpoints/a", "checkpoints/b")
    run.remove("checkpoints/a")
    run.remove("checkpoints/a")
    assert run.download("checkpoints/b", target).bytes == 1000
    assert target.read_bytes() == source.read_bytes() and len(list(target.parent.iterdir())) == 1
    for ask in (run.entry, lambda name: run.read(name, 1), lambda name: run.download(name, target)):
        with pytest.raises(NotThere):
            ask("checkpoints/a")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://me:word@bucket/runs", "a user, a password or a token in it; expected an address wi"),
        ("s3://bucket/runs?token=word", "AWS_ACCESS_KEY_ID"),
        ("s3:///runs", "expected one place: s3://bucket/folder"),
        ("zip://a::s3://bucket/a.zip", "expected one place"),
        ("s3://bucket/../other", "expected one place"),
        (
            "nothing://bucket/runs",
            "cannot be opened .*nothing.*expected s3://, or what fsspec know",
        ),
        ("gs://bucket/runs", "without its package .*gcsfs.*expected the package that fsspec needs"),
    ],
)
def test_addresses_that_name_no_place_are_refused(address, words):
    with pytest.raises(ConfigError, match=f"runs=.*{words}") as refused:
        open_storage(address, "runs")
    assert ":word" not in str(refused.value) and "=word" not in str(refused.value)


def test_half_of_a_file_has_no_name(tmp_path, monkeypatch):
    """The store dies while `last.ckpt` is copied: the one before is there, and nothing else."""
    place = open_storage(f"file://{tmp_path / 'kept'}", "runs")
    new = tmp_path / "new"
    new.write_bytes(b"n" * 100)
    place.write("checkpoints/last.ckpt", b"old")

    def half(source, target, **_):
        with open(target, "wb") as file:
            file.write(b"n" * 50)
        raise OSError("the line is cut")

    monkeypatch.setattr(place._fs, "put_file", half)
    with pytest.raises(StorageFault, match="the line is cut"):
        place.upload(new, "checkpoints/last.ckpt")
    assert place.read("checkpoints/last.ckpt", 999) == b"old"
    assert list(place.files()) == ["checkpoints/last.ckpt"]


def test_a_file_of_an_address_is_fetched_once_for_each_content(tmp_path, monkeypatch):
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache"))
    place = open_storage("memory://runs/one/checkpoints", "runs")
    place.write("best.ckpt", b"first")
    path = fetched("memory://runs/one/checkpoints/best.ckpt")
    assert path.read_bytes() == b"first" and path.name == "best.ckpt"
    monkeypatch.setattr(type(place), "_fetch", lambda *_: pytest.fail("fetched again"))
    assert fetched("memory://runs/one/checkpoints/best.ckpt") == path
    monkeypatch.undo()
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "cache"))
    place.write("best.ckpt", b"second")
    assert fetched("memory://runs/one/checkpoints/best.ckpt").read_bytes() == b"second"
    with pytest.raises(WeightsMissing, match="no file memory://runs/none.ckpt .*check the address"):
        fetched("memory://runs/none.ckpt")
    with pytest.raises(ConfigError, match="expected a file's address"):
        fetched("memory://runs/")
    place.write("large.ckpt", b"")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: type("Disk", (), {"free": -1}))
    with pytest.raises(WeightsError, match="large.ckpt has 0.0 MiB; expected at most .*make room"):
        fetched("memory://runs/one/checkpoints/large.ckpt")


# ------------------------------------------------------------------ copying


def test_a_fault_is_told_and_passes_and_never_stops_the_run(folder, caplog):
    place = Faulty("memory://runs/run", {"upload": 3})
    (folder / "logs").mkdir()
    (folder / "logs" / "rank0.log").write_text("said")
    with uploading(folder, place):
        wait_until(lambda: read_state(folder).get("upload"))
        told = read_state(folder)["upload"]
        wait_until(lambda: "logs/rank0.log" in place.inner.files())
        wait_until(lambda: read_state(folder).get("upload") is None)
        (folder / "metrics.csv").write_text("1")
    assert "503" in told["fault"] and told["files"] == 3 and told["bytes"] > 100
    said = caplog.text
    assert "upload: the store answers 503; 3 files (0.0 MiB) wait in" in said
    assert "training goes on, try 2 follows" in said and "memory://runs/run: copied again" in said
    assert place.inner.read("metrics.csv", 9) == b"1"
    state = json.loads(place.inner.read("state.json", 9999))
    assert state["upload"] is None and "owner.json" not in place.inner.files()


def test_a_checkpoint_that_is_replaced_while_it_is_copied_arrives_whole(folder):
    place = Faulty("memory://runs/run")
    copier, first = Mirror(folder, place), (folder / CHECKPOINTS / LAST).read_bytes()
    upload, replaced = place.inner.upload, []

    def slow(path, name):
        if name.endswith(LAST) and not replaced:
            replaced.append(write_checkpoint(folder / CHECKPOINTS / LAST, 2))
        upload(path, name)

    place.inner.upload = slow
    copier.round()
    assert place.inner.read(f"{CHECKPOINTS}/{LAST}", 1 << 20) == first
    copier.round(final=True)
    assert place.inner.read(f"{CHECKPOINTS}/{LAST}", 1 << 20) == replaced[0] != first
    assert not list((folder / ".held").iterdir())


def test_second_names_of_one_content_are_copied_by_the_store(folder):
    """`previous.ckpt` is what `last.ckpt` was, `best.ckpt` the first of the best ones."""
    place, last = Faulty("memory://runs/run"), folder / CHECKPOINTS / LAST
    copier = Mirror(folder, place)
    copier.round()
    first = last.read_bytes()
    last.rename(last.with_name("previous.ckpt"))
    write_checkpoint(last, 2)
    best = write_checkpoint(last.with_name("best-000000008.ckpt"), 3)
    last.with_name("best.ckpt").hardlink_to(last.with_name("best-000000008.ckpt"))
    place.calls.clear()
    copier.round()
    sent = [name for what, *_, name in place.calls if what == "upload"]
    assert sorted(sent) == [f"{CHECKPOINTS}/best-000000008.ckpt", f"{CHECKPOINTS}/{LAST}"]
    kept = {name: place.inner.read(f"{CHECKPOINTS}/{name}", 1 << 20)
            for name in ("previous.ckpt", "best.ckpt", LAST)}  # fmt: skip
    assert kept == {"previous.ckpt": first, "best.ckpt": best, LAST: last.read_bytes()}


def test_the_folder_is_pruned_of_what_has_arrived_and_no_resume_needs(folder):
    checkpoints = folder / CHECKPOINTS
    for number in (8, 16, 24):
        write_checkpoint(checkpoints / f"best-{number:09d}.ckpt", number)
    write_checkpoint(checkpoints / "previous.ckpt", 99)
    (checkpoints / "best.ckpt").hardlink_to(checkpoints / "best-000000016.ckpt")
    ranking = ["best-000000016.ckpt", "best-000000008.ckpt"]
    (checkpoints / "best.json").write_text(json.dumps(dict.fromkeys(ranking, 0.5)))
    (folder / "grids").mkdir()
    for name in ("000000008.png", "000000016.png"):
        (folder / "grids" / name).write_bytes(b"png")
    before = {path.name for path in checkpoints.iterdir()}
    place = Faulty("memory://runs/run", {"upload": 10**6})
    copier = Mirror(folder, place)
    with pytest.raises(StorageFault):
        copier.round()
    assert {path.name for path in checkpoints.iterdir()} == before  # nothing has arrived
    place.faults.clear()
    copier.round()
    # 24 has just been written and is ranked by nobody yet; 16 is the best one; 8 may go.
    stay = {LAST, "best.ckpt", "best.json", "best-000000016.ckpt", "best-000000024.ckpt"}
    assert {path.name for path in checkpoints.iterdir()} == stay
    assert [path.name for path in (folder / "grids").iterdir()] == ["000000016.png"]
    there = place.inner.files()
    assert {f"{CHECKPOINTS}/{name}" for name in before} <= set(there) and len(there) == 10
    ranking = ["best-000000024.ckpt", "best-000000016.ckpt"]  # 8 fell behind
    (checkpoints / "best.json").write_text(json.dumps(dict.fromkeys(ranking, 0.4)))
    copier.round()
    assert f"{CHECKPOINTS}/best-000000008.ckpt" not in place.inner.files()
    assert f"{CHECKPOINTS}/best-000000016.ckpt" in place.inner.files()


def test_a_run_whose_end_cannot_be_copied_says_what_to_do(folder):
    place = Faulty("memory://runs/run")
    words = (r"4 files \(0.0 MiB\) of the run could not be copied to memory://runs/run: upload: "
             r"the store answers 503; expected a store that takes them. To fix: they are whole in "
             rf"{folder}; once it does, on this machine: .*train.* "
             r"run_dir=memory://runs/run resume=auto")  # fmt: skip
    with pytest.raises(RunError, match=words), uploading(folder, place):
        place.faults["upload"] = 10**6
        (folder / "finished").write_bytes(b"")
        (folder / "metrics.csv").write_text("1")
    assert (folder / CHECKPOINTS / LAST).is_file() and read_state(folder)["upload"]["files"] == 4
    place.faults.clear()
    with uploading(folder, place):  # the same again, when the store is well
        pass
    assert {"finished", f"{CHECKPOINTS}/{LAST}", "metrics.csv"} <= set(place.inner.files())
    assert not (folder / CHECKPOINTS / LAST).exists()  # finished and arrived: all is there


def test_what_ends_a_run_is_not_hidden_by_a_store_that_fails(folder, caplog):
    place = Faulty("memory://runs/run")
    with pytest.raises(RunError, match="losses stay NaN"), uploading(folder, place):
        place.faults["upload"] = 10**6
        raise RunError("losses stay NaN")
    assert "could not be copied to memory://runs/run" in caplog.text


# ------------------------------------------------------------------ the lock


def another(**changes):
    """Another run's owner.json, of a machine that cannot be seen from here."""
    state = {"state": "running", "job": "another", "host": "far", "processes": "elsewhere"}
    return json.dumps(state | {"pid": 7, "time": time.time(), "token": "x"} | changes).encode()


def test_two_runs_do_not_write_to_one_place(folder):
    place = Faulty("memory://runs/run")
    place.inner.write("owner.json", another())
    words = (r"memory://runs/run, where another run \(another, process 7 on far\) is under way; "
             "expected a folder for each run.*again in 90 s; nothing was overwritten")  # fmt: skip
    with pytest.raises(ConfigError, match=words), uploading(folder, place):
        pytest.fail("begun")
    assert list(place.inner.files()) == ["owner.json"]
    place.inner.write("owner.json", another(time=time.time() - 91))  # it died
    with uploading(folder, place):
        pass


def test_of_two_that_begin_at_once_the_last_to_sign_has_it(folder, monkeypatch):
    place = open_storage("memory://runs/run", "runs")
    monkeypatch.setattr(mirror.time, "sleep", lambda _: place.write("owner.json", another()))
    with pytest.raises(ConfigError, match="another run .another, process 7 on far. is under way"):
        Mirror(folder, place).claim()


def test_a_run_that_was_taken_over_copies_nothing_more(folder, caplog):
    place = Faulty("memory://runs/run")
    with pytest.raises(RunError, match="another run .another, on far. has taken it over"):
        with uploading(folder, place):
            wait_until(lambda: f"{CHECKPOINTS}/{LAST}" in place.inner.files())
            theirs = place.inner.read(f"{CHECKPOINTS}/{LAST}", 1 << 20)
            wait_until(lambda: place.inner.write("owner.json", another()) or taken_over(caplog))
            write_checkpoint(folder / CHECKPOINTS / LAST, 2)
    assert place.inner.read(f"{CHECKPOINTS}/{LAST}", 1 << 20) == theirs
    assert json.loads(place.inner.read("owner.json", 9999))["job"] == "another"


def taken_over(caplog):
    """Whether the run has said so. Between its look and its own signature it may write over the
    other's, who looks once more before he begins for that reason (`Mirror.claim`)."""
    return "was taken over by another run" in caplog.text


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "kept").write_text("a file, no folder")
    place = open_storage(f"file://{tmp_path / 'kept'}", "runs").inside("run")
    words = "kept/run cannot be used: .*expected a store that can be read and written. To fix: ch"
    with pytest.raises(ConfigError, match=words):
        afar.check_writable_there(place)


# ------------------------------------------------------------------ going on


def restored(place, folder):
    return afar.restore(afar.Place(place, folder), "auto")


def kept(folder, numbers=(1,)):
    """A place with a run whose checkpoints were copied from `folder` one after the other."""
    place = open_storage("memory://runs/run", "runs")
    (folder / "metrics.csv").write_text("step,kimg\n4,0.004\n")
    for number in numbers:
        last = folder / CHECKPOINTS / LAST
        if number != numbers[0]:
            last.rename(last.with_name("previous.ckpt"))
        write_checkpoint(last, number)
        Mirror(folder, place).round(final=True)
    return place


def test_a_machine_with_an_empty_disk_gets_what_a_resume_needs(folder, tmp_path):
    place, new = kept(folder, (1, 2)), tmp_path / "new"
    place.write("../evil.json", b"{}")
    place.write("checkpoints/other.ckpt", b"not ours")
    assert restored(place, new) == new / CHECKPOINTS / LAST
    assert (new / CHECKPOINTS / LAST).read_bytes() == (folder / CHECKPOINTS / LAST).read_bytes()
    assert (new / "metrics.csv").read_text().startswith("step") and read_state(new)["job"] == "mine"
    names = {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()}
    assert names == {"metrics.csv", "state.json", f"{CHECKPOINTS}/{LAST}", NAME, ".lock"}
    uploads = Faulty("memory://runs/run")
    Mirror(new, uploads).round(final=True)
    assert not [call for call in uploads.calls if call[0] == "upload"]  # all of it is there


@pytest.mark.parametrize("bytes_left", [0, 100, None])
def test_a_damaged_checkpoint_there_is_told_and_the_one_before_is_taken(
    folder, tmp_path, capsys, bytes_left
):
    place, new = kept(folder, (1, 2)), tmp_path / "new"
    content = bytearray(place.read(f"{CHECKPOINTS}/{LAST}", 1 << 20))
    content[len(content) // 2] ^= 1
    place.write(f"{CHECKPOINTS}/{LAST}", bytes(content[:bytes_left]))
    found = restored(place, new)
    assert found == new / CHECKPOINTS / "previous.ckpt"
    assert f"{place.at(f'{CHECKPOINTS}/{LAST}')} is damaged" in capsys.readouterr().out


def test_what_this_machine_could_not_copy_any_more_counts(folder):
    place = kept(folder)
    newer = write_checkpoint(folder / CHECKPOINTS / LAST, 5)  # and then it was killed
    found = restored(place, folder)
    assert found == folder / CHECKPOINTS / LAST and found.read_bytes() == newer
    Mirror(folder, place).round(final=True)
    assert place.read(f"{CHECKPOINTS}/{LAST}", 1 << 20) == newer


def test_what_was_not_copied_is_put_aside_when_another_machine_has_gone_on(folder, capsys):
    place = kept(folder)
    ours = write_checkpoint(folder / CHECKPOINTS / LAST, 5)
    theirs = folder.parent / "theirs"
    assert restored(place, theirs)
    gone_on = write_checkpoint(theirs / CHECKPOINTS / LAST, 6)
    Mirror(theirs, place).round(final=True)
    found = restored(place, folder)
    assert found is not None and found.read_bytes() == gone_on
    (aside,) = folder.glob("not-copied-*/last.ckpt")
    assert aside.read_bytes() == ours and f"kept as {aside}" in capsys.readouterr().out


def test_files_that_are_larger_than_a_run_s_are_not_fetched(folder, tmp_path, monkeypatch):
    place = kept(folder)
    monkeypatch.setitem(afar.SMALL, "metrics.csv", 4)
    with pytest.raises(RunError, match="metrics.csv has 18 bytes; at most 4 are expected"):
        restored(place, tmp_path / "new")


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"bytes": "x"}}', "[" * 100_000])
def test_a_ledger_of_other_content_is_empty(folder, text):
    """Then all is copied again, and nothing counts as arrived."""
    (folder / NAME).write_text(text)
    ledger = Ledger(folder)
    assert ledger == {} and not ledger.holds(f"{CHECKPOINTS}/{LAST}")
    (folder / CHECKPOINTS / "best.json").write_text(text)
    assert ledger.ranking() is None


def test_a_refusal_is_not_tried_again(monkeypatch):
    tries = []

    def refused():
        tries.append(1)
        raise StorageRefusal("the store answers 403 AccessDenied")

    with pytest.raises(StorageRefusal):
        afar.patiently(refused, "it")
    assert len(tries) == 1
