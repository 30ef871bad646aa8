"""`.pt` files that would run code, or take more than they give: each refused in less than a second,
in bounded memory, with the reason; and damaged ones are read or refused, nothing else."""

import argparse
import io
import os
import pickle
import resource
import time
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganinv.core.errors import USER_ERRORS, WeightsError
from ganinv.core.safe.io import load_tensors
from ganinv.generator.importer.load import load_generator


def archive(path, pickled, *, compress=zipfile.ZIP_STORED, data=None):
    """A torch zip file around any pickle."""
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("x/data.pkl", pickled)
        file.writestr("x/byteorder", "little")
        for key, value in (data or {}).items():
            file.writestr(f"x/data/{key}", value)
        file.writestr("x/version", "3\n")
    return path


def refused(path, words):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()  # of this process: the machine may stand still
    with pytest.raises(WeightsError, match=words):
        load_tensors(path)
    assert time.process_time() - begin < 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 64e6 + 4 * path.stat().st_size, grown


class Reduced:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


CALLS = {
    "os.system": lambda canary: Reduced(os.system, f"touch {canary}"),
    "eval": lambda canary: Reduced(eval, f"open({str(canary)!r}, 'w')"),
    "open": lambda canary: Reduced(open, str(canary), "w"),
    "getattr": lambda canary: Reduced(getattr, os, "system"),
    "torch.load": lambda canary: Reduced(torch.load, str(canary)),
    "hub": lambda canary: Reduced(torch.hub.load, "x", "y"),
    "module": lambda canary: torch.nn.Linear(2, 2),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("legacy", [False, True])
def test_no_call_of_a_file_is_made(tmp_path, name, legacy):
    canary, path = tmp_path / "canary", tmp_path / "evil.pt"
    made = CALLS[name](canary) if name != "getattr" else Reduced(getattr, "", "join")
    torch.save({"g_ema": made}, path, _use_new_zipfile_serialization=not legacy)
    refused(path, "never runs code stored in one")
    assert not canary.exists()


def build(target, state):
    """BUILD: sets the state of whatever a name stands for."""
    return b"\x80\x02c" + target + b"\n)R" + state + b"b."


def test_states_set_on_what_torch_allows(tmp_path):
    """The tricks that a reader with setattr falls for."""
    state = b"}X\x08\x00\x00\x00__init__X\x01\x00\x00\x00xs"
    for i, target in enumerate((b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage")):
        path = archive(tmp_path / f"{i}.pt", build(target, state))
        refused(path, "never runs code stored in one")


def tensor_pickle(numel, size, stride, offset=0):
    def number(value):
        return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    storage += b"X\x03\x00\x00\x00cpu" + number(numel) + b"tQ"
    view = b"(" + storage + number(offset) + number(size) + b"\x85" + number(stride) + b"\x85"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
        + view
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


def test_a_hand_made_tensor_is_read(tmp_path):
    data = torch.arange(4.0).numpy().tobytes()
    path = archive(tmp_path / "good.pt", tensor_pickle(4, 4, 1), data={"0": data})
    assert load_tensors(path).tolist() == [0, 1, 2, 3]


SIZES = {
    "beyond its storage": (4, 5, 1, 0),
    "far beyond": (4, 1 << 40, 1, 0),
    "an offset beyond": (4, 1, 1, 4),
    "a negative offset": (4, 1, 1, -1),
    "a storage beyond its bytes": (1 << 40, 1 << 40, 1, 0),
    "repeated numbers": (4, 1 << 40, 0, 0),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_are_not_there(tmp_path, name):
    numel, size, stride, offset = SIZES[name]
    data = torch.arange(4.0).numpy().tobytes()
    path = archive(tmp_path / "x.pt", tensor_pickle(numel, size, stride, offset), data={"0": data})
    refused(path, "cannot be read as plain tensors")


def test_zip_bombs(tmp_path):
    big = b"\x80\x02X" + (1 << 26).to_bytes(4, "little") + b"a" * (1 << 26) + b"."
    bomb = archive(tmp_path / "bomb.pt", big, compress=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1e5
    refused(bomb, "a compressed zip file, which torch.save never writes")
    plain = archive(tmp_path / "plain.pt", pickle.dumps({}, 2), data={"0": b"\0" * 1000})
    content = bytearray(plain.read_bytes())
    with zipfile.ZipFile(plain) as file:
        entries = file.infolist()
    first, last = entries[0].header_offset, entries[-1].header_offset
    at = content.rindex(b"PK\x01\x02") + 42
    assert int.from_bytes(content[at : at + 4], "little") == last
    content[at : at + 4] = first.to_bytes(4, "little")
    (tmp_path / "overlap.pt").write_bytes(content)
    refused(tmp_path / "overlap.pt", "a zip file whose entries overlap")


def test_deep_and_shared_values(tmp_path):
    deep = b"\x80\x02" + b"(" * 20_000 + b"t" * 20_000 + b"."
    refused(
        archive(tmp_path / "deep.pt", deep),
        ENDLESS,
    )
    laughs = [torch.ones(1)]
    for _ in range(60):
        laughs = [laughs, laughs]
    torch.save(laughs, tmp_path / "laughs.pt")  # 2^60 values, for whoever copies or prints them
    refused(tmp_path / "laughs.pt", "values inside values without end")


ENDLESS = "values inside values without end|a tuple as a key|other than one value"


def doubling(levels, *, key):
    """Tuples of two, each of the one before, at the end a key whose hash takes 2^levels steps."""
    pairs = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(levels))
    return b"\x80\x02N\x85q\x00" + pairs + (b"}h%cNs." % levels if key else b"h%c." % levels)


@pytest.mark.parametrize("key", [True, False])
def test_tuples_that_double(tmp_path, key):
    refused(
        archive(tmp_path / "x.pt", doubling(100, key=key)),
        ENDLESS,
    )
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    head += pickle.dumps({"little_endian": True}, 2)
    (tmp_path / "legacy.pt").write_bytes(head + doubling(100, key=key))
    refused(
        tmp_path / "legacy.pt",
        ENDLESS,
    )


def test_endless_operations(tmp_path, monkeypatch):
    monkeypatch.setattr("ganinv.core.safe.torch_file.MAX_OPERATIONS", 10_000)
    path = archive(tmp_path / "x.pt", b"\x80\x02" + b"N" * 20_000 + b".")
    refused(path, "more operations than any file of tensors needs")


def test_what_training_writes_is_read(tmp_path):
    """State dicts with their metadata, optimizers, sets of options, several dtypes."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    content |= {
        "rng": torch.get_rng_state(),
        "half": torch.ones(2).half(),
        "opts": {"a": [1, None]},
    }
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pt"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        found = load_tensors(path)
        assert found["optimizer"]["param_groups"] == content["optimizer"]["param_groups"]
        for key, value in network.state_dict().items():
            assert torch.equal(found["state_dict"][key], value)


def test_options_of_a_command_line_are_plain_values(tmp_path):
    """rosinality's training files carry their argparse.Namespace."""
    torch.save({"args": argparse.Namespace(size=256)}, tmp_path / "r.pt")
    assert load_tensors(tmp_path / "r.pt")["args"].size == 256
    torch.save({"args": argparse.Namespace(x=Reduced(print, 1))}, tmp_path / "e.pt")
    refused(tmp_path / "e.pt", "never runs code stored in one")


# ------------------------------------------------------------------ damaged files


def good_files():
    found = []
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save({"g_ema": {"input.input": torch.ones(1, 4, 4, 4)}, "latent_avg": torch.ones(4)},
                   buffer, _use_new_zipfile_serialization=not legacy)  # fmt: skip
        found.append(buffer.getvalue())
    return found


GOOD = good_files()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    """Bytes changed, left out or put in anywhere: a user's error that says why, or a good file."""
    good = data.draw(st.sampled_from(GOOD))
    at = data.draw(st.integers(0, len(good) - 1))
    path = tmp_path_factory.getbasetemp() / "fuzzed.pt"
    cut = data.draw(st.integers(0, 3))
    path.write_bytes(good[:at] + data.draw(st.binary(max_size=4)) + good[at + cut :])
    with pytest.raises(USER_ERRORS):  # even an undamaged one is no complete generator
        load_generator(weights=str(path), resolution=None, kind=None, origin=None)
