"""Boundaries: what published files hold comes out as NumPy would give it; all else is refused, in
less than a second and without a byte of it being run."""

import io
import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganinv.core.errors import WeightsError, WeightsMissing
from ganinv.core.safe.npy import read_boundary


def saved(array, **more):
    buffer = io.BytesIO()
    np.save(buffer, array, **more)
    return buffer.getvalue()


def idinvert(protocol=2, **changes):
    """A boundary file as IDInvert's: a pickled dictionary in an array of one object."""
    rows = np.random.default_rng(0).standard_normal((1, 14, 512)).astype(np.float32)
    found = {"boundary": rows, "meta_data": {"manipulate_layers": [0, 1, 2]}} | changes
    head = saved(np.array(None, dtype=object))
    start = head.index(b"\n") + 1
    return head[:start] + pickle.dumps(np.array(found, dtype=object), protocol), rows


def read(tmp_path, data):
    path = tmp_path / "boundary.npy"
    path.write_bytes(data)
    return read_boundary(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 512), (1, 14, 512)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_arrays(tmp_path, dtype, shape, order):
    array = np.asarray(np.random.default_rng(1).standard_normal(shape), dtype, order=order)
    found = read(tmp_path, saved(array))
    assert found.layers is None and found.direction.dtype == torch.float32
    assert np.array_equal(found.direction.numpy(), array.astype(np.float32))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_idinvert_s_dictionary(tmp_path, protocol, old):
    data, rows = idinvert(protocol)
    if old and protocol < 4:
        data = data.replace(b"numpy._core", b"numpy.core")
    if protocol == 5:  # out of band buffers need names that the published files do not use
        with pytest.raises(WeightsError, match="not a name of tensors"):
            read(tmp_path, data)
        return
    found = read(tmp_path, data)
    assert found.layers == [0, 1, 2] and np.array_equal(found.direction.numpy(), rows)
    assert read(tmp_path, idinvert(protocol, meta_data={})[0]).layers is None


class Command:
    """Would run a shell command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def refused(tmp_path, data, words):
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with pytest.raises(WeightsError, match=words):
            read(tmp_path, data)
        seconds, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 1 and peak < 4e6 + 4 * len(data), (seconds, peak)


def header(text, version=1):
    body = text.encode() + b"\n"
    width = 2 if version == 1 else 4
    return b"\x93NUMPY" + bytes([version, 0]) + len(body).to_bytes(width, "little") + body


LIE = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
HOSTILE = {
    "no npy": (b"PK\x03\x04" + b"\0" * 50, "does not begin as a .npy"),
    "huge": (header(LIE % "(1, 1000000000000)"), "a shape of other things|announced"),
    "larger than the file": (header(LIE % "(1, 60000000)") + b"\0" * 8, "announced, 8 bytes given"),
    "smaller than the file": (header(LIE % "(1, 1)") + b"\0" * 8, "4 bytes announced, 8 bytes"),
    "negative": (header(LIE % "(-1, -1)") + b"\0" * 4, "a shape of other things"),
    "no tuple": (header(LIE % "7"), "no tuple of few numbers"),
    "many dimensions": (header(LIE % str((1,) * 60)), "no tuple of few numbers"),
    "code in the header": (header("__import__('os').system('true')"), "a header that cannot"),
    "deep header": (header("(" * 4000), "a header"),
    "long header": (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", "a header of 2147483647 bytes"),
    "cut": (b"\x93NUMPY\x01", "does not begin"),
    "strings": (saved(np.array(["a", "b"])), "not of plain little-endian numbers"),
    "structured": (saved(np.zeros(2, dtype=[("a", "f4")])), "not of plain little-endian"),
    "big-endian": (saved(np.zeros((1, 4), ">f4")), "not of plain little-endian numbers"),
    "integers": (saved(np.zeros((1, 4), np.int64)), "not finite"),
    "not finite": (saved(np.full((1, 4), np.nan, np.float32)), "not finite"),
    "a vector": (saved(np.zeros(4, np.float32)), r"an array of shape \[4\]"),
    "several": (saved(np.zeros((2, 4), np.float32)), r"an array of shape \[2, 4\]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_boundary_is_refused(tmp_path, name):
    refused(tmp_path, *HOSTILE[name])


def test_no_code_of_a_dictionary_runs(tmp_path):
    canary = tmp_path / "canary"
    for protocol in (2, 4):
        evil = idinvert(protocol, boundary=Command(canary))[0]
        refused(tmp_path, evil, "asks for 'posix.system', which is not a name of tensors")
    refused(tmp_path, idinvert(boundary=[1.0])[0], "other than IDInvert's dictionary")
    refused(tmp_path, idinvert(meta_data={"manipulate_layers": [-1]})[0], "no list of layers")
    refused(tmp_path, idinvert(meta_data={"manipulate_layers": "a-5"})[0], "no list of layers")
    loop = [1]
    loop.append(loop)
    refused(tmp_path, idinvert(boundary=loop)[0], "other than IDInvert's dictionary")
    assert not canary.exists()


def test_missing_and_large(tmp_path, monkeypatch):
    with pytest.raises(WeightsMissing, match="no boundary file at .*check the path"):
        read_boundary(tmp_path / "gone.npy")
    monkeypatch.setattr("ganinv.core.safe.npy.MAX_BYTES", 100)
    with pytest.raises(WeightsError, match="has 2176 bytes; expected a boundary, at most 100"):
        read(tmp_path, saved(np.zeros((1, 512), np.float32)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    """A byte changed, left out or repeated anywhere: a boundary, or a refusal, never more."""
    good = data.draw(st.sampled_from([idinvert(2)[0][:900], saved(np.ones((1, 8), "f4"))]))
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(good[:at] + byte + good[at + data.draw(st.integers(0, 2)) :])
    try:
        read_boundary(path)
    except WeightsError:
        pass
