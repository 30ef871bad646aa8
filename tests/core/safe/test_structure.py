"""Every reader on files of wrong structure: the right bytes around values of wrong types and sizes.
Each file is read or refused in one sentence, within 2 s and 1 GB, and never ends the process."""

import json
import pickle
import shutil
import struct
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from ganinv.core.errors import USER_ERRORS
from ganinv.core.safe.io import load_tensors, read_safetensors
from ganinv.core.safe.npy import read_boundary as read_npy
from ganinv.dataset.codec import load, load_labels
from ganinv.dataset.index import Reader, read_index
from ganinv.editing.boundary import read_boundary
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import find_discriminator, load_generator
from ganinv.generator.importer.nvidia_state import export_state
from ganinv.generator.importer.rosinality import export_state as to_rosinality
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.interop import feature, imported
from ganinv.interop.bundle import load as load_inverter
from tests.core.safe.hostile import (
    PLAIN,
    TENSORS,
    assert_bounded,
    changed,
    deep,
    header_changed,
    metadata_changed,
    nested,
    pickled,
    torch_bytes,
    written,
)
from tests.dataset.sets import grey_set

SMALL = {
    "z_dim": 4, "c_dim": 0, "w_dim": 4, "resolution": 8, "img_channels": 3, "mapping_layers": 2,
    "channel_base": 32, "channel_max": 4, "conv_clamp": None,
}  # fmt: skip
generator_of = partial(load_generator, resolution=None, kind=None, origin=None)


def as_generator(path):
    generator_of(weights=str(path))


def as_discriminator(path):
    find_discriminator(weights=str(path), origin=None)


def as_model(path):
    """What import and open_model ask of a torch file."""
    content = load_tensors(path)
    feature.is_arcface(content), feature.is_base_code(content)
    if imported.is_official(content):
        imported.read(content)
    if feature.is_base_code(content):
        feature.base_code(content)


def as_set(path):
    reader = Reader(index := read_index(path), open_files=1)
    for sample in range(min(3, len(index))):
        try:
            reader.image(sample)
            reader.json(sample)
        except ValueError:  # a bad sample is skipped
            pass


def as_image(path):
    for reader in (load, load_labels):
        try:
            reader(path.read_bytes())
        except (ValueError, OSError, SyntaxError):  # an unreadable image is skipped
            pass


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return StyleGAN2Generator(**SMALL)


def test_bundles(tmp_path, generator):
    save_bundle(tmp_path / "good.safetensors", generator, {"kimg": 1})
    good = (tmp_path / "good.safetensors").read_bytes()
    as_generator(tmp_path / "good.safetensors")
    files = [*metadata_changed(good), *header_changed(good)]
    paths = written(tmp_path, files, ".safetensors")
    assert_bounded(paths, as_generator)
    for reader in (as_discriminator, read_safetensors, load_inverter, read_boundary):
        assert_bounded(paths[::7], reader)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files(tmp_path, generator, legacy):
    state = to_rosinality(generator)
    nvidia = export_state(generator)
    huge = {key: torch.zeros(1).expand(1) for key in list(state)[:3]}
    many = [
        *changed({"g_ema": state, "latent_avg": torch.zeros(4)}, PLAIN + TENSORS, 2),
        *changed(nvidia, PLAIN + TENSORS, 2),
        *changed({"state_dict": {f"decoder.{k}": v for k, v in state.items()}}, TENSORS, 2),
    ]
    contents = [
        *many[legacy::6],
        *({"g_ema": {**state, key: nested()}} for key in ("input.input", "style.1.weight")),
        {**nvidia, "init_kwargs": nested()}, {**nvidia, "class": nested()}, nested(), deep(),
        {"models": nested()}, {"state_dict": deep()}, {"g_ema": huge}, {"d": nested()},
        {"state_dict": {"encoder.conv1.weight": 1}, "opts": nested()},
        {"state_dict": {"encoder.input_layer.0.weight": torch.zeros(())}, "latent_avg": nested()},
        {**nvidia, "init_kwargs": {**nvidia["init_kwargs"], "z_dim": 10**6}},
    ]  # fmt: skip
    files = [torch_bytes(content, legacy) for content in contents]
    paths = written(tmp_path, files, ".pt")
    assert_bounded(paths, as_generator)
    assert_bounded(paths[::5], as_discriminator)
    assert_bounded(paths, as_model)
    assert_bounded(paths[::5], read_boundary)


def call(name, *arguments):
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"(" + b"".join(arguments) + b"tR"


TRICKS = {
    "bytearray": call("builtins.bytearray", b"\x8a\x05" + (8 << 30).to_bytes(5, "little")),
    "FloatTensor": call("torch.FloatTensor", b"J\x00\x00\x00\x30"),
    "punycode": call("_codecs.encode", b"X\x01\x00\x00\x00a", b"X\x08\x00\x00\x00punycode"),
    "encode": b"X\x00\x00\x08\x00" + b"a" * (1 << 19) + b"q\x00"
    + (b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR0") * 5000 + b"N",
    "encoded": call("_codecs.encode", call("_codecs.encode", b"X\x01\x00\x00\x00a",
                    b"X\x06\x00\x00\x00latin1"), b"X\x06\x00\x00\x00latin1"),
    "namespace": b"cargparse\nNamespace\n)R}X\x05\x00\x00\x00buildNsb}b",
    "a name": b"ctorch\nFloatStorage\n",
    "set": call("builtins.set", b"](K\x01e"),
}  # fmt: skip


def test_pickles_in_every_container(tmp_path):
    paths = []
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    for name, trick in TRICKS.items():
        for form in ("zip", "DATA", "legacy", "tail", "bare"):
            path = tmp_path / f"{name.replace(' ', '-')}-{form}.pt"
            content = pickled(trick)
            if form in ("zip", "DATA", "tail"):
                with zipfile.ZipFile(path, "w") as file:
                    file.writestr("x/data.pkl", pickled(b"}") if form == "DATA" else content)
                    if form == "DATA":
                        file.writestr("x/data.PKL", content)
            if form == "tail":
                path.write_bytes(b"".join(head) + pickled(b"}") + path.read_bytes())
            elif form == "legacy":
                path.write_bytes(b"".join(head) + content + pickle.dumps([], 2))
            elif form == "bare":
                path.write_bytes(content)
            paths.append(path)
    assert_bounded(paths, as_generator)
    assert_bounded(paths, as_model)


def npy(header, data=b"", version=1):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text + data


def test_boundaries(tmp_path):
    good = {"descr": "<f4", "fortran_order": False, "shape": (1, 4)}
    values = [*PLAIN, (1 << 40, 1), (-1,), ("a",), (1.5,), ((1,),), (1,) * 60, "|O", ">f4", "<f16"]
    headers = [{**good, key: value} for key in good for value in values]
    files = [npy(repr(header)[:60_000], b"\0" * 16) for header in headers]
    array = np.empty((), dtype=object)
    for value in changed(
        {"boundary": np.ones((1, 2, 4), "f4"), "meta_data": {"manipulate_layers": [0, 1]}},
        [*PLAIN[:-2], nested(), np.ones(3), np.array(2), ("a",), "1-2,5", "0-99999"],
    ):
        array[()] = value
        files.append(npy("{'descr': '|O', 'fortran_order': False, 'shape': ()}",
                         pickle.dumps(array, 2)))  # fmt: skip
    assert_bounded(written(tmp_path, files, ".npy"), read_npy)


class Again:
    """Pickled as one array of a megabyte that shares its bytes with all the others."""

    raw = np.ones(1 << 18, "f4").tobytes()

    def __reduce__(self):
        state = (1, (1 << 18,), np.dtype("f4"), False, Again.raw)
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state


def test_many_arrays_of_the_same_bytes(tmp_path):
    """Four gigabytes of arrays in a file of one megabyte."""
    many = np.empty(4096, object)
    many[:] = [Again() for _ in many]
    content = pickle.dumps(many, 4)
    assert len(content) < 2 << 20
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (4096,)}"
    paths = written(tmp_path, [npy(header, content)], ".npy")
    assert_bounded(paths, read_npy)
    with pytest.raises(USER_ERRORS, match="the same bytes read again and again"):
        read_npy(paths[0])


def test_indexes(tmp_path):
    grey_set(tmp_path / "good", [3, 2], "png")
    raw = json.loads((tmp_path / "good/index.json").read_text())
    raw["source"] = {"kind": "rgb", "extension": "png", "classes": 0}
    texts = [json.dumps(value) for value in changed(raw, PLAIN, 12)]
    texts += ["", "[" * 100_000, "null", "{" * 9, '{"format":"ganinv-shards","version":1}']
    raw["source"] = None
    texts += [json.dumps(value) for value in changed(raw, PLAIN[:12], 12)]
    paths = []
    for number, text in enumerate(texts):
        folder = tmp_path / f"{number:05d}"
        folder.mkdir()
        for file in ("000000.tar", "000001.tar", "offsets.npy"):
            (folder / file).symlink_to(tmp_path / "good" / file)
        (folder / "index.json").write_text(text)
        paths.append(folder)
    assert_bounded(paths, as_set)


def test_offsets(tmp_path):
    grey_set(tmp_path / "good", [3], "png")
    good = np.load(tmp_path / "good/offsets.npy")
    paths = []
    for number, row in enumerate([-1, 0, 511, 1 << 31, 1 << 62, -(1 << 63)]):
        for column in range(4):
            folder = tmp_path / f"{number}{column}"
            shutil.copytree(tmp_path / "good", folder)
            other = good.copy()
            other[0, column] = row
            np.save(folder / "offsets.npy", other)
            paths.append(folder)
    for name, content in {"empty": b"", "cut": good.tobytes(), "o": pickle.dumps(good)}.items():
        shutil.copytree(tmp_path / "good", tmp_path / name)
        (tmp_path / name / "offsets.npy").write_bytes(content)
        paths.append(tmp_path / name)
    assert_bounded(paths, as_set)


def chunk(kind, data):
    import zlib

    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, colour=2):
    import zlib

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"\0" * min(10**7, (width * 3 + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(width, height, scans=1, progressive=True):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", progressive=progressive)
    data = bytearray(buffer.getvalue())
    at = max(data.find(b"\xff\xc2"), data.find(b"\xff\xc0"))
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return bytes(data[:-2] + scan * (scans - 1) + data[-2:])


def webp(width, height, kind=b"VP8X"):
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    head = b"\0\0\0\0" + sizes
    if kind == b"VP8L":
        bits = (width - 1) & 0x3FFF | ((height - 1) & 0x3FFF) << 14
        head = b"\x2f" + bits.to_bytes(4, "little") + b"\0" * 5
    body = b"WEBP" + kind + struct.pack("<I", len(head)) + head
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_images(tmp_path):
    sizes = [(1, 1), (13_000, 13_000), (65_500, 65_500), (1 << 31 - 1, 1), (1, 1 << 30), (0, 0)]
    files = [png(*size) for size in sizes] + [png(8000, 8000, 16, 6), png(8000, 8000, 16, 0)]
    files += [jpeg(min(w, 65_500), min(h, 65_500)) for w, h in sizes[:4]]
    files += [jpeg(8000, 8000, 5), jpeg(64, 64, 5000), jpeg(65_500, 65_500, 1, False)]
    files += [webp(16_383, 16_383, kind) for kind in (b"VP8X", b"VP8L", b"VP8 ", b"XXXX")]
    files += [b"BM" + struct.pack("<IHHIIIIHHIIIIII", 54, 0, 0, 54, 40, w, h, 1, 24, 0, 0, 0, 0, 0,
              0) for w, h in sizes[:3]]  # fmt: skip
    files += [b"P6 %d %d 255\n" % size for size in sizes] + [b"P3 9999999 9999999 65535\n1 1 1"]
    files += [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a" + b"\0" * 20, b""]
    assert_bounded(written(tmp_path, files, ".img"), as_image)
