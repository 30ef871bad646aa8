"""The restricted reader: plain values come out as from Python's; everything hostile is refused,
fast, in little memory, with the reason."""

import collections
import io
import os
import pickle
import random
import struct
import time
import tracemalloc

import numpy as np
import pytest
import torch

from ganinv.core.safe.unpickle import MAX_TEXT, Allowed, Buildable, Machine, Unreadable
from ganinv.core.safe.unpickle_tensors import StoredTensor, tensor_names

SECONDS, MEMORY = 6.0, 64e6  # of the CPU; most refusals take milliseconds, traced memory slows
TRIES = 3


class Plain(Buildable):
    """An allowed value that takes no state."""


def load(data, **more):
    names = {
        **tensor_names(len(data)),
        "lib.Dict": Allowed(new=lambda: {}),
        "lib.plain": Allowed(call=Plain),
        **more,
    }
    return Machine(memoryview(data), names).load()


def refused(data, words):
    """Refused with these words, within bounds; slow is what is slow every time."""
    for _ in range(TRIES):
        tracemalloc.start()
        begin = time.process_time()
        try:
            with pytest.raises(Unreadable, match=words):
                load(data)
            seconds, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < MEMORY + 4 * len(data), peak
        if seconds < SECONDS:
            return
    raise AssertionError(f"{seconds:.1f} s, {TRIES} times")


# ------------------------------------------------------------------ what is read


VALUES = [
    None,
    [True, False, 0, 255, 65535, -1, 2**31 - 1, -(2**31), 2**63, -(2**200), 1.5, float("inf")],
    ["", "a" * 300, "äöü", ("t",), (1, 2), (1, 2, 3), (1, 2, 3, 4), (), [[]], {}],
    {"a": {"b": [1, {2: "c"}]}, "s": {"x", "y"}, "e": set()},
    collections.OrderedDict(),
    list(range(3000)),  # in batches
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_plain_values_come_out_as_from_python(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes_are_views_of_the_file(protocol):
    data = pickle.dumps([b"abc", b"x" * 300], protocol)
    short, long = load(data)
    assert (bytes(short), bytes(long)) == (b"abc", b"x" * 300)
    assert isinstance(long, memoryview) and long.obj is data


def test_shared_values_stay_shared():
    inner = [1]
    first, second = load(pickle.dumps([inner, inner], 4))
    assert first is second


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8],
)
def test_tensors_come_out_bit_for_bit(dtype, protocol):
    base = (torch.randn(4, 6) * 50).to(dtype)
    tensors = [base, base.t(), base[1:3, ::2], base[0, 0], base[:0], torch.nn.Parameter(base)
               if dtype.is_floating_point else base]  # fmt: skip
    found = load(pickle.dumps(tensors, protocol))
    for ours, theirs in zip(found, tensors, strict=True):
        assert type(ours) is StoredTensor
        assert ours.tensor().dtype == dtype and ours.tensor().is_contiguous()
        assert torch.equal(ours.tensor(), theirs.detach())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_numbers_are_numbers_and_arrays_are_left_out(protocol):
    numbers = [np.float64(1.5), np.float32(0.25), np.int64(-7), np.bool_(True)]
    found = load(pickle.dumps([*numbers, np.arange(3)], protocol))
    assert found[:4] == [1.5, 0.25, -7, True]
    assert [type(value) for value in found[:4]] == [float, float, int, bool]
    old = pickle.dumps(np.float64(1.5), 3).replace(b"numpy._core", b"numpy.core")
    assert load(old) == 1.5


# ------------------------------------------------------------------ code


class Command:
    """Would run a shell command."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


FUNCTIONS = [os.system, eval, exec, getattr, __import__, open, print, type, bytearray, io.BytesIO]
FUNCTIONS += [torch.load, torch.hub.load, np.load, np.frombuffer, collections.defaultdict, dict]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_no_function_of_the_file_is_called(tmp_path, function, protocol):
    canary = tmp_path / "canary"
    data = pickle.dumps({"x": [Command(function, f"touch {canary}")]}, protocol)
    refused(data, r"asks for '[\w.]+', which is not a name of tensors")
    assert not canary.exists()


def stream(*, numel=2, stated=None, data=None, kind=b"torch\nFloatStorage", extra=b"", keys=b"0"):
    """An old torch.save stream of a storage, by hand."""
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}X\r\x00\x00\x00little_endian\x88s."
    number = b"\x8a\x08" + struct.pack("<q", numel)
    identity = b"\x80\x02(X\x07\x00\x00\x00storagec" + kind + b"\n"
    identity += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number + b"NtQ" + extra + b"."
    listed = b"\x80\x02](X\x01\x00\x00\x00" + keys + b"e."
    data = struct.pack("<2f", 1, 2) if data is None else data
    count = struct.pack("<q", numel if stated is None else stated)
    return magic + b"\x80\x02M\xe9\x03." + system + identity + listed + count + data


def storage(blob):
    return b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(blob)) + blob + b"\x85R"


def tensor(source, offset, size, stride):
    """_rebuild_tensor_v2 by hand; numbers as LONG1 of 8 bytes."""

    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    arguments = source + number(offset) + numbers(size) + numbers(stride) + b"\x89}"
    return b"\x80\x04ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR."


def test_the_hand_made_stream_is_a_good_one():
    assert load(tensor(storage(stream()), 0, (2,), (1,))).tensor().tolist() == [1, 2]


def test_no_function_is_called_inside_a_storage(tmp_path):
    canary = tmp_path / "canary"
    for protocol in (2, 4):
        evil = pickle.dumps(Command(os.system, f"touch {canary}"), protocol)
        for blob in (evil, stream(extra=b"0" + evil[2:-1])):
            refused(storage(blob) + b".", "asks for 'posix.system'|more than|asks for")
    refused(storage(stream(kind=b"torch\nload")) + b".", "asks for 'torch.load'")
    refused(storage(stream(kind=b"torch._utils\n_rebuild_tensor_v2")) + b".", "asks for 'torch._ut")
    assert not canary.exists()


OUTER = {
    "INST": (b"(ios\nsystem\n.", "INST makes an instance"),
    "OBJ": (b"(clib\nplain\no.", "OBJ makes an instance"),
    "NEWOBJ_EX": (b"clib\nDict\n)}\x92.", "NEWOBJ_EX makes an instance"),
    "PERSID": (b"Pname\n.", "PERSID asks for an outside object"),
    "BINPERSID": (b"\x8c\x01xQ.", "BINPERSID asks for an outside object"),
    "EXT": (b"\x82\x01.", "EXT1 asks for a registered extension"),
    "NEXT_BUFFER": (b"\x97.", "NEXT_BUFFER asks for an outside buffer"),
    "protocol 0": (b"I1\n.", "an operation of code b'I'"),
    "protocol 9": (b"\x80\x09N.", "pickle protocol 9"),
    "dotted": (
        b"\x8c\x0dtorch.storage\x8c\x1c_load_from_bytes.__globals__\x93.",
        "asks for 'torch.storage._load_from_bytes.__globals__'",
    ),
    "split name": (b"ctorch\nstorage.os\n.", "asks for 'torch.storage.os'"),
    "computed name": (b"]]\x93.", "a name that is not text"),
    "BUILD on a name": (
        b"ctorch.storage\n_load_from_bytes\n}\x8c\x01xNsb.",
        "sets the state of to",
    ),
    "BUILD slots": (b"clib\nDict\nN}\x8c\x01xNs\x86b.", "sets the state of lib.Dict"),
    "BUILD on a dict": (b"}}\x8c\x01xNsb.", "sets the state of a dict"),
    "BUILD on a value": (b"clib\nplain\n)R}b.", "Plain takes no state"),
    "call of a value": (b"}\x85R.", "it takes more|calls a"),
    "call of text": (b"\x8c\x09os.system)R.", "calls a str"),
    "call of what is made": (b"clib\nDict\n)R.", "calls lib.Dict"),
    "make what is called": (b"clib\nplain\n)\x81.", "makes an instance of lib.plain"),
    "make with arguments": (b"clib\nDict\nN\x85\x81.", "makes an instance of lib.Dict"),
    "list as arguments": (b"clib\nplain\n]R.", "calls lib.plain"),
    "arguments that do not fit": (b"clib\nplain\nN\x85R.", "lib.plain with arguments"),
    "APPEND on a name": (b"clib\nDict\nNa.", "APPENDS on a Name, not on a list"),
    "SETITEM on a list": (b"]NNs.", "SETITEMS on a list, not on a dict"),
    "SETITEM on a name": (b"clib\nDict\n\x8c\x01xNs.", "SETITEMS on a Name"),
    "ADDITEMS on a list": (b"](\x90.", "ADDITEMS on a list"),
    "key": (b"}NNs.", "a NoneType as a key"),
    "long key": (b"}\x8a\x08" + b"\x01" * 8 + b"Ns.", "a int as a key"),
    "half a pair": (b"}(Nu.", "a key but no value"),
    "set of lists": (b"\x8f(]\x90.", "other things than strings"),
    "set call": (b"cbuiltins\nset\nK\x01\x85R.", "other things than strings"),
    "encoding": (b"c_codecs\nencode\n\x8c\x01x\x8c\x05rot13\x86R.", "other than latin1"),
    "object dtype": (b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R.", "one of plain numbers"),
    "big-endian": (
        b"cnumpy\ndtype\n\x8c\x02f8\x89\x88\x87R(K\x03\x8c\x01>tb.",
        "not little-endian",
    ),
    "scalar": (
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x02f8\x89\x88\x87RC\x01x\x86R.",
        "a NumPy number of 1 bytes",
    ),
}


@pytest.mark.parametrize("name", OUTER)
def test_tricks_are_refused(name):
    refused(*OUTER[name])


# ------------------------------------------------------------------ sizes and endless work


SIZES = {
    "string": (b"X\xff\xff\xff\xff", f"a string of 4294967295 bytes, more than {MAX_TEXT}"),
    "long string": (b"\x8d" + b"\xff" * 8, "a string of 18446744073709551615 bytes"),
    "bytes": (b"B\xff\xff\xff\xff", "asks for 4294967295 bytes where 0 are left"),
    "long bytes": (b"\x8e" + b"\xff" * 8, "asks for 18446744073709551615 bytes"),
    "bytearray": (b"\x96" + b"\xff" * 8, "asks for 18446744073709551615 bytes"),
    "number": (b"\x8b\xff\xff\xff\x7f", "a number of 2147483647 bytes"),
    "frame": (b"\x80\x04\x95" + b"\xff" * 8 + b".", "a frame of 18446744073709551615 bytes"),
    "name": (b"c" + b"x" * 10_000_000 + b"\n", "a name of more than 256 bytes"),
    "memo": (b"j\xff\xff\xff\xff.", "recalls value 4294967295, which it never stored"),
    "empty": (b"", "asks for 1 bytes where 0 are left"),
    "no value": (b".", "ends with other than one value"),
    "two values": (b"NN.", "ends with other than one value"),
    "open mark": (b"N(.", "ends with other than one value"),
    "below a mark": (b"N(0.", "takes more values than it made"),
    "no mark": (b"Nt.", "a mark that is not there"),
    "nothing to store": (b"q\x00.", "takes more values than it made"),
    "not UTF-8": (b"\x8c\x01\xff.", "text that is not UTF-8"),
    "work without end": (b"N0" * 5_000_000, "more operations than any file"),
    "a heap of lists": (b"]" * 5_000_000, "more operations than any file"),
    "nesting": (b"]" + b"\x85" * 5_000_000, "more operations than any file"),
    "same text encoded again": (
        b"\x8d" + struct.pack("<Q", MAX_TEXT) + b"a" * MAX_TEXT + b"q\x00"
        + b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R" * 1000,
        "read again and again",
    ),
    "same set built again": (
        b"](" + b"\x8c\x01a" * 100_000 + b"eq\x00" + b"cbuiltins\nset\nh\x00\x85R" * 20_000,
        "read again and again",
    ),
    "same storage read again": (
        b"B" + struct.pack("<I", len(stream())) + stream() + b"q\x00"
        + b"ctorch.storage\n_load_from_bytes\nh\x00\x85R0" * 10_000,
        "read again and again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_endless_work_are_bounded(name):
    refused(*SIZES[name])


def test_a_value_inside_itself_is_no_trouble():
    inner = load(b"]q\x00h\x00a.")
    assert inner[0] is inner
    inner = load(b"}q\x00\x8c\x01xh\x00s.")
    assert inner["x"] is inner


HUGE = 1 << 60
STORAGES = {
    "more than there is": (stream(numel=3), "storage of 3 numbers with 8 bytes"),
    "less than there is": (stream(numel=1), "storage of 1 numbers with 8 bytes"),
    "huge": (stream(numel=HUGE), f"storage of {HUGE} numbers with 8 bytes"),
    "negative": (stream(numel=-1), "a storage without a length"),
    "two lengths": (stream(stated=1), "storage of 2 numbers"),
    "several": (stream(keys=b"1"), "several storages"),
    "cut": (stream()[:-9], "asks for 8 bytes|storage of"),
    "forged": (
        stream(extra=b"0X\x01\x00\x00\x00aX\x01\x00\x00\x000K\x02\x87"),
        "something else than a storage",
    ),
    "other": (b"\x80\x02K\x01." * 5, "no torch.save stream"),
    "work": (b"N0" * 100_000, "more operations"),
}


@pytest.mark.parametrize("name", STORAGES)
def test_storages_are_checked(name):
    blob, words = STORAGES[name]
    refused(storage(blob) + b".", words)


VIEWS = [
    ((1, (2,), (1,)), "2 numbers up to number 2 of a storage of 2"),
    ((0, (2,), (2,)), "up to number 2"),
    ((2, (1,), (1,)), "up to number 2"),
    ((-1, (1,), (1,)), "without a place in its storage"),
    ((0, (-1,), (1,)), "a shape of other things"),
    ((0, (2,), (-1,)), "a shape of other things"),
    ((0, (1 << 30, 1 << 30), (0, 0)), "numbers up to number 0"),
    ((0, (3,), (0,)), "3 numbers up to number 0"),
    ((0, (HUGE,), (1,)), "a shape of other things"),
    ((0, (0, HUGE), (1, 1)), "a shape of other things"),
    ((HUGE, (1,), (1,)), "up to number"),
    ((0, (2,), (1, 1)), "1 sizes and 2 strides"),
    ((0, (1,) * 9, (1,) * 9), "no tuple of few numbers"),
]


@pytest.mark.parametrize(("view", "words"), VIEWS)
def test_views_stay_within_their_storage(view, words):
    refused(tensor(storage(stream()), *view), words)


def test_a_tensor_of_no_storage_and_a_parameter_of_no_tensor():
    refused(tensor(b"N", 0, (1,), (1,)), "without a storage")
    refused(b"ctorch._utils\n_rebuild_parameter\nN\x88}\x87R.", "a parameter without a tensor")


def test_any_damage_is_refused_or_read_but_never_anything_else():
    """Cuts, flipped bytes and shuffled pieces of a good file."""
    whole = pickle.dumps({"t": torch.arange(6.0).reshape(2, 3), "n": np.float64(1), "s": {"a"}}, 4)
    chance = random.Random(0)
    begin, read = time.process_time(), 0
    for trial in range(3000):
        data = bytearray(whole)
        if trial < len(whole):
            del data[trial:]
        for _ in range(chance.randrange(4) if trial >= len(whole) else 0):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if trial % 5 == 0 and data:
            a, b = sorted(chance.randrange(len(data)) for _ in range(2))
            data[a:b] = reversed(data[a:b])
        try:
            found = load(bytes(data))
            read += 1
            if type(found) is dict and type(found.get("t")) is StoredTensor:
                found["t"].tensor()
        except Unreadable as error:
            assert "at byte" in str(error)
    assert 0 < read < 3000 and time.process_time() - begin < 30
