"""Containers that say more than they hold: lengths, overlaps, repetitions, depth, and what is no
file at all. Each is refused in one sentence, within 2 s and 1 GB."""

import io
import json
import os
import pickle
import struct
import zipfile
from functools import partial

import pytest
import torch

from ganinv.core.errors import USER_ERRORS, WeightsError, WeightsMissing
from ganinv.core.safe.io import (
    load_tensors,
    read_metadata,
    read_safetensors,
    write_safetensors,
)
from ganinv.core.safe.json_text import MAX_VALUES, parse_json
from ganinv.core.safe.npy import read_boundary as read_npy
from ganinv.core.safe.safetensors_file import MAX_TENSORS
from ganinv.editing.boundary import read_boundary
from ganinv.generator.importer import rosinality
from ganinv.generator.importer.load import load_generator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from tests.core.safe.hostile import (
    assert_bounded,
    faults,
    pickled,
    safetensors,
    torch_bytes,
    written,
)

as_generator = partial(load_generator, resolution=None, kind=None, origin=None)


def of_weights(path):
    as_generator(weights=str(path))


# ------------------------------------------------------------------ safetensors


def entry(begin, end, shape=(1,), kind="F32"):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


REFUSED = {  # name -> file, words
    "header of 2^63": (struct.pack("<Q", 1 << 63) + b"{}", "cut short: a header of"),
    "header of 2^64-1": (struct.pack("<Q", (1 << 64) - 1), "cut short: a header of"),
    "one key twice": (safetensors(b'{"a":{},"a":{}}', b""), "one key twice"),
    "metadata twice": (safetensors(b'{"__metadata__":{},"__metadata__":{}}', b""), "key twice"),
    "overlap": (safetensors({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)), "overlap"),
    "gap": (safetensors({"a": entry(4, 8)}, bytes(8)), "a gap or an overlap"),
    "hole at the end": (safetensors({"a": entry(0, 4)}, bytes(8)), "longer than it says"),
    "cut short": (safetensors({"a": entry(0, 8, (2,))}, bytes(4)), "cut short: 8 bytes of tensors"),
    "sizes": (safetensors({"a": entry(0, 4, (1 << 62,))}, bytes(4)), "no list of few sizes"),
    "negative": (safetensors({"a": entry(4, 0, (-1,))}, bytes(4)), "no list of few sizes"),
    "other length": (safetensors({"a": entry(0, 4, (7,))}, bytes(4)), "4 bytes instead of 28"),
    "backwards": (safetensors({"a": entry(4, 0, (0,))}, bytes(4)), "-4 bytes instead of 0"),
    "dimensions": (safetensors({"a": entry(0, 4, [1] * 500)}, bytes(4)), "no list of few sizes"),
    "float offsets": (safetensors({"a": entry(0.0, 4.0)}, bytes(4)), "without a beginning"),
    "types": (safetensors({"a": entry(0, 4, (1,), "PICKLE")}, bytes(4)), "not one of F64"),
    "half a character": (safetensors(rb'{"\ud800":{}}', b""), "no Unicode"),
    "no Unicode": (safetensors(b'{"\xff":{}}', b""), "no Unicode"),
    "depth": (safetensors(b'{"__metadata__":' + b"[" * 100_000, b""), "without end"),
    "depth within": (
        safetensors({"__metadata__": {"a": "[" * 100_000 + "]" * 100_000}}, b""),
        "values inside values without end",
    ),
    "digits": (safetensors(b'{"a":' + b"9" * 100_000 + b"}", b""), "too many digits"),
    "a list": (safetensors(b"[]", b""), "a list instead of a description"),
    "metadata of numbers": (safetensors({"__metadata__": {"a": 1}}, b""), "no texts by name"),
    "nothing": (b"", "cut short"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_safetensors_are_refused(tmp_path, name):
    data, words = REFUSED[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    for reader in (read_safetensors, read_metadata):
        with pytest.raises(WeightsError, match=words):
            reader(path)


def many_tensors(count):
    text = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n
                     for n in range(count))  # fmt: skip
    return safetensors(b"{" + text + b"}", b"")


def test_safetensors_that_are_many_things(tmp_path):
    files = [
        many_tensors(MAX_TENSORS), many_tensors(250_000),
        safetensors(b'{"__metadata__":{"a":"' + b"[]," * (5 << 20) + b'"}}', b""),
        safetensors(b"[" + b"[]," * (5 << 20) + b"[]]", b""),
        safetensors(b'{"a":[' + b'"ab",' * (3 << 20) + b'"ab"]}', b""),
        safetensors(b"[" + b"1e9," * (4 << 20) + b"1]", b""),
        safetensors(b"{" + b"".join(b'"%d":{},' % n for n in range(900_000)) + b'"x":{}}', b""),
        safetensors(b'{"a":' + b"9" * 4000 + b"}", b""),
    ]  # fmt: skip
    paths = written(tmp_path, files, ".safetensors")
    assert_bounded(paths, read_safetensors, read_metadata, of_weights)


def test_a_safetensors_file_is_held_once_and_in_parts(tmp_path):
    """Peak of memory: the tensors that are asked for, and nothing as large beside them."""
    path = tmp_path / "x.safetensors"
    size = 64 << 20
    write_safetensors(path, {"G.a": torch.ones(size // 4), "D.a": torch.ones(size // 4)}, {"k": 1})
    code = (
        "import sys, torch; from ganinv.core.safe.io import read_safetensors as read\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return 1024 * int(next(x for x in lines if x.startswith('VmHWM')).split()[1])\n"
        "before = peak()\n"
        "for prefix in ('X', 'G.', ''):\n"
        "    found, metadata = read(sys.argv[1], prefix)\n"
        "    assert metadata == {'k': 1} and all(float(t.min()) == 1 for t in found.values())\n"
        "    print(*sorted(found), (peak() - before) >> 20)\n"
        "    del found"
    )
    none, one, both = run_python(code, str(path)).splitlines()
    assert int(none) < 20
    assert one.startswith("G.a ") and 60 < int(one.split()[-1]) < 100
    assert both.startswith("D.a G.a ") and 120 < int(both.split()[-1]) < 165


def run_python(code, *arguments):
    import subprocess
    import sys

    found = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert not found.returncode, found.stderr
    return found.stdout.strip()


METADATA = {"nested": {"a": [1, None, "\U0001f600"]}}


def test_types_are_read_as_the_library_writes_them(tmp_path):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
             torch.int16, torch.int8, torch.uint8, torch.bool]  # fmt: skip
    tensors = {f"{kind}": torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    write_safetensors(
        tmp_path / "x.safetensors", tensors, {"nested": {"a": [1, None, "\U0001f600"]}}
    )
    found, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == METADATA and set(found) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name
        found[name].fill_(0)  # memory of its own


# ------------------------------------------------------------------ JSON


def test_json_is_counted_before_it_is_parsed():
    assert parse_json(b'{"a": [1, 2.5, null, "\\ud83d\\ude00"]}', 100) == {
        "a": [1, 2.5, None, "\U0001f600"]
    }
    with pytest.raises(ValueError, match="11 bytes, more than 10"):
        parse_json(b"[1,2,3,4,5]", 10)
    with pytest.raises(ValueError, match=f"more than {MAX_VALUES:,} values"):
        parse_json(b"[" + b"1," * MAX_VALUES + b"1]", 1 << 30)
    with pytest.raises(ValueError, match="no JSON: Expecting value at character 1"):
        parse_json(b"[", 10)


# ------------------------------------------------------------------ zip files


def zipped(entries, edit=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in entries:
            file.writestr(name, data)
    return buffer.getvalue() if edit is None else edit(buffer.getvalue())


def directory_of(count):
    """A zip file's end with a directory of empty entries that all lie at its beginning."""
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"x"
    row = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0,
                      0) + b"x"  # fmt: skip
    ends = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(row) * count,
                       len(local), 0)  # fmt: skip
    return local + row * count + ends


def test_zip_files_of_many_entries(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(directory_of(2_000_000))
    assert_bounded([path], load_tensors, of_weights)
    with pytest.raises(WeightsError, match="a zip file with a directory of 94,000,000 bytes"):
        load_tensors(path)


def test_zip_files_that_are_damaged(tmp_path):
    good = torch_bytes({"a": torch.ones(4), "b": [1, "x"]})
    end, first = good.rindex(b"PK\x05\x06"), good.index(b"PK\x01\x02")
    files = [good[:position] + value.to_bytes(size, "little") + good[position + size :]
             for position, size in [(end + 8, 2), (end + 10, 2), (end + 12, 4), (end + 16, 4),
                                    (first + 6, 2), (first + 8, 2), (first + 10, 2),
                                    (first + 20, 4),
                                    (first + 24, 4), (first + 28, 2), (first + 30, 2),
                                    (first + 32, 2), (first + 42, 4), (6, 2), (8, 2), (26, 2)]
             for value in (0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1)]  # fmt: skip
    files += [zipped([("x/data.pkl", pickle.dumps({}, 2)), ("x/.data/serialization_id", b"1")]),
              zipped([("../data.pkl", pickled(b"}"))]), zipped([("data.pkl", pickled(b"}"))]),
              zipped([("\x1b[2J/data.pkl", pickled(b"}"))]), b"PK\x03\x04", zipped([])]  # fmt: skip
    assert_bounded(written(tmp_path, files, ".pt"), load_tensors)


# ------------------------------------------------------------------ pickles


def name_of(module, name):
    return f"c{module}\n{name}\n".encode()


def long_list(parts):
    """A list in memo 1, and its pickle's parts before."""
    return b"](" + parts + b"eq\x01"


PAIR = b"X\x01\x00\x00\x00aN\x86"
AGAIN = 60_000
LONG_TEXT = b"X\x00\x00\x0f\x00" + b"a" * (15 << 16) + b"q\x01"
REPEATED = {  # each builds something once and hands it to one function again and again
    "OrderedDict": long_list(PAIR * 20_000)
    + b"0" + (name_of("collections", "OrderedDict") + b"h\x01\x85R0") * AGAIN + b"N",
    "Namespace": b"}(" + b"".join(b"X\x05\x00\x00\x00%05dN" % n for n in range(20_000)) + b"uq\x01"
    + b"0" + (name_of("argparse", "Namespace") + b")Rh\x01b0") * AGAIN + b"N",
    "Size": b"(" + b"K\x01" * 90_000 + b"tq\x010"
    + (name_of("torch", "Size") + b"h\x01\x85R0") * AGAIN + b"N",
    "device": b"X\x00\x00\x08\x00" + b"a" * (1 << 19) + b"q\x010"
    + (name_of("torch", "device") + b"h\x01h\x01\x86R0") * AGAIN + b"N",
    "arguments": b"(" + b"K\x01" * 90_000 + b"tq\x010"
    + (name_of("torch._utils", "_rebuild_parameter") + b"h\x01R0") * AGAIN + b"N",
    "set": long_list(b"X\x01\x00\x00\x00a" * 20_000)
    + b"0" + (name_of("builtins", "set") + b"h\x01\x85R0") * AGAIN + b"N",
    "text": LONG_TEXT + b"](" + b"h\x01" * 90_000 + b"e\x86",
    "keys": LONG_TEXT + b"](" + b"}h\x01Ns" * 50_000 + b"e\x86",
    "itself": b"]q\x01h\x01a",
    "itself, by a dictionary": b"}q\x01X\x01\x00\x00\x00ah\x01s",
    "deep": b"]" * 50_000 + b"a" * 49_999,
    "marks": b"(" * 399_000,
    "sparse": name_of("torch._utils", "_rebuild_sparse_tensor") + b")R",
    "quantized": name_of("torch._utils", "_rebuild_qtensor") + b")R",
    "meta": name_of("torch._utils", "_rebuild_meta_tensor_no_storage") + b")R",
    "wrapper": name_of("torch._utils", "_rebuild_wrapper_subclass") + b")R",
    "escapes": b"X\x04\x00\x00\x00\x1b[2JX\x01\x00\x00\x00x\x93",
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
def test_pickles_that_repeat_themselves(tmp_path, old):
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    files = []
    for trick in REPEATED.values():
        content = pickled(trick)
        made = b"".join(head) + content + pickle.dumps([], 2) if old else zipped(
            [("x/data.pkl", content)])  # fmt: skip
        files.append(made)
        files.append(content)  # as NVIDIA's files are
    paths = written(tmp_path, files, ".pt")
    assert_bounded(paths[1::2], of_weights)
    assert not any(faults(partial(refused, reader=load_tensors), paths[::2], ()))


def refused(path, reader):
    with pytest.raises(WeightsError, match="cannot be read as plain tensors"):
        reader(path)


def test_storages_and_views_of_every_kind(tmp_path):
    """Offsets, sizes, strides and lengths of every sign and size around four numbers."""
    numbers = (-(1 << 63), -1, 0, 1, 4, 5, 1 << 31, (1 << 63) - 1)
    data = [("x/data/0", torch.arange(4.0).numpy().tobytes())]
    files = []
    for place in range(4):
        for number in numbers:
            values = [4, 0, 4, 1]  # numbers stored, offset, size, stride
            values[place] = number
            files.append(zipped([("x/data.pkl", tensor_pickle(*values)), *data]))
    files += [zipped([("x/data.pkl", tensor_pickle(4, 0, n, m)), *data])
              for n in numbers for m in numbers]  # fmt: skip
    assert_bounded(written(tmp_path, files, ".pt"), load_tensors, of_weights, read_boundary)


def tensor_pickle(stored, offset, size, stride):
    def number(value):
        return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)

    storage = b"(X\x07\x00\x00\x00storage" + name_of("torch", "FloatStorage")
    storage += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(stored) + b"tQ"
    view = storage + number(offset) + number(size) + b"\x85" + number(stride) + b"\x85"
    return pickled(name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + view + b"\x89NtR")


def rosinality_of(**changes):
    """Zeros of a generator's shapes, under rosinality's names."""
    shape = {"z_dim": 1, "w_dim": 1, "c_dim": 0, "resolution": 8, "img_channels": 3,
             "mapping_layers": 1, "channel_base": 8192, "channel_max": 1,
             "conv_clamp": None}  # fmt: skip
    with torch.device("meta"):
        empty = StyleGAN2Generator(**{**shape, **changes})
    theirs = {their for their, _ in rosinality.names(empty.resolution, 1).values()}
    state = {k: v for k, v in rosinality.export_state(empty).items() if k in theirs}
    return {k: torch.zeros(v.shape) for k, v in state.items() if not k.startswith("noises.")}


def test_networks_that_a_small_file_asks_for(tmp_path):
    """Noise maps that are drawn, and samples of W."""
    for z in (10**6, 4096):
        state = {**rosinality_of(), "style.1.weight": torch.zeros(1, z)}
        torch.save({"g_ema": state}, tmp_path / f"{z}.pt")
    torch.save({"g_ema": rosinality_of(w_dim=4096, z_dim=4096)}, tmp_path / "wide.pt")
    maps = {"g_ema": rosinality_of(resolution=8192), "latent_avg": torch.zeros(1)}
    torch.save(maps, tmp_path / "maps.pt")
    assert (tmp_path / "maps.pt").stat().st_size < 200_000
    assert_bounded(sorted(tmp_path.glob("*.pt")), of_weights)
    with pytest.raises(WeightsError, match="a mapping network too large to estimate it"):
        of_weights(tmp_path / "wide.pt")
    with pytest.raises(WeightsError, match="the file has no noises.noise_0"):
        of_weights(tmp_path / "maps.pt")
    with pytest.raises(WeightsError, match="make no StyleGAN2Generator .z_dim=1000000"):
        of_weights(tmp_path / "1000000.pt")


# ------------------------------------------------------------------ NumPy


def test_headers_of_numpy(tmp_path):
    texts = ["-" * 4000 + "1", "(" * 4000, "[" * 90 + "]" * 90, "{" * 4000, "1" * 4000,
             "{'descr':" * 400, "9" * 4000 + "j", "'a' " * 1000, "{'descr': '<f4', 'descr': '<f4'}",
             "\x00" * 100,
             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4,)}"]  # fmt: skip
    files = [b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(16)
             for text in texts]  # fmt: skip
    assert_bounded(written(tmp_path, files, ".npy"), read_npy, read_boundary)


# ------------------------------------------------------------------ no files


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npy", ".pkl"])
def test_what_is_no_file(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    (tmp_path / f"gone{suffix}").symlink_to("nothing")
    paths = [*tmp_path.iterdir(), tmp_path / f"{'a' * 300}{suffix}", tmp_path / f"a\0b{suffix}"]
    assert len(paths) == 7
    assert_bounded(paths, load_tensors, read_safetensors, read_metadata, read_boundary, of_weights)
    with pytest.raises(WeightsError, match="is no file; expected a weights file"):
        load_tensors(tmp_path / f"zero{suffix}")
    with pytest.raises(WeightsMissing, match="no weights file at"):
        load_tensors(tmp_path / f"gone{suffix}")


def test_empty_and_half_files(tmp_path):
    whole = [torch_bytes({"a": torch.ones(50)}, old) for old in (False, True)]
    whole.append(pickle.dumps({"G_ema": None}, 4))
    whole.append(safetensors({"__metadata__": {"a": json.dumps(1)}, "b": entry(0, 4)}, bytes(4)))
    files = [data[:length] for data in whole for length in range(0, len(data), 7)]
    paths = written(tmp_path, files, ".pt")
    assert_bounded(paths, load_tensors, of_weights)
    (tmp_path / "s").mkdir()
    paths = written(tmp_path / "s", files, ".safetensors")
    assert_bounded(paths, read_safetensors, of_weights)
    assert USER_ERRORS
