"""Images, sets of shards, databases and files of points that say more than they hold: read or
refused in one sentence, within 2 s and 1 GB, and a training goes on past them."""

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib

import lmdb
import numpy as np
import pytest
from PIL import Image

from ganinv.core.errors import USER_ERRORS, DataError
from ganinv.dataset.codec import decode, load, load_labels
from ganinv.dataset.faces import LandmarksFile, open_photo
from ganinv.dataset.index import Reader, read_index
from ganinv.dataset.index_file import MAX_SHARDS
from ganinv.dataset.source import MAX_BYTES, open_source
from tests.core.safe.hostile import assert_bounded, written
from tests.dataset.sets import SIZE, data_of, grey_set


def as_image(path):
    for reader in (load, load_labels, open_photo):
        try:
            reader(path.read_bytes())
        except (ValueError, OSError, SyntaxError) as error:
            assert str(error) and "object at 0x" not in str(error)


def as_source(path):
    source = open_source(path)
    for name, _ in source.items()[:50]:
        try:
            source.read(name)
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001  # as a plan takes it: this image is left out
            assert not isinstance(error, MemoryError)


def as_set(path):
    reader = Reader(index := read_index(path), open_files=1)
    for sample in range(min(3, len(index))):
        for read in (reader.image, reader.json):
            try:
                read(sample)
            except ValueError:
                pass


# ------------------------------------------------------------------ images


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks, width=8, height=8):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * ((width * 3 + 1) * height))
    parts = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMB = zlib.compress(b"a" * (300 << 20), 9)


def tags(*entries, order="<"):
    """A TIFF's directory; each entry is (tag, type, count, value)."""
    rows = b"".join(struct.pack(f"{order}HHLL", *entry) for entry in entries)
    return struct.pack(f"{order}H", len(entries)) + rows + bytes(4)


def tiff(*entries, data=b""):
    return b"II*\0" + struct.pack("<L", 8) + tags(*entries) + data


PLAIN_TIFF = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
              (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64), (273, 4, 1, 300)]  # fmt: skip


def many_tags(size):
    """A directory whose every entry is the whole file."""
    count = min(size // 24, 60_000)
    return tiff(*[(1000 + n, 7, size // 2, 12 * count + 20) for n in range(count)],
                data=bytes(size // 2))  # fmt: skip


def jpeg(*segments):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    parts = [b"\xff\xe1" + struct.pack(">H", len(s) + 8) + b"Exif\0\0" + s for s in segments]
    return buffer.getvalue()[:2] + b"".join(parts) + buffer.getvalue()[2:]


def bmp(width, height, compression, data):
    head = struct.pack(
        "<IiiHHIIIIII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0
    )
    start = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + bytes(1024) + data


def frames(form):
    buffer = io.BytesIO()
    pictures = [Image.new("RGB", (64, 64), (n, n, n)) for n in range(300)]
    pictures[0].save(buffer, form, save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def images():
    yield from (png(chunk(b"zTXt", b"a\0\0" + BOMB)), png(chunk(b"iCCP", b"a\0\0" + BOMB)),
                png(chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
                png(*[chunk(b"tEXt", b"a\0b")] * 99_999),
                png(chunk(b"eXIf", many_tags(4 << 20))),
                png(chunk(b"IHDR", bytes(13))))  # fmt: skip
    raw = b"\nexif\n" + b"%8d" % 4 + b"\n" + many_tags(200_000).hex().encode()
    yield png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)))
    yield from (frames(form) for form in ("GIF", "WEBP", "PNG", "TIFF"))
    yield from (jpeg(many_tags(64_000)), jpeg(*[many_tags(64_000)] * 20),
                jpeg(b"II*\0" + struct.pack("<L", 8) + tags((274, 3, 1, 6)))[:-200])  # fmt: skip
    yield many_tags(4 << 20)
    for edit in [{322: 1 << 30, 323: 1 << 30}, {322: 0, 323: 8}, {322: 8}, {256: 1 << 30},
                 {277: 65_535}, {258: 64}, {278: 0}, {278: 1 << 31}, {279: 1 << 31},
                 {273: 1 << 31}, {259: 5}, {259: 7}, {259: 8},
                 {259: 50_000}, {262: 2}]:  # fmt: skip
        rows = {tag: (tag, kind, count, value) for tag, kind, count, value in PLAIN_TIFF}
        rows |= {tag: (tag, 4, 1, value) for tag, value in edit.items()}
        yield tiff(*sorted(rows.values()), data=bytes(400))
    for kind, count in ((5, 1), (3, 2), (12, 1), (7, 9), (2, 4)):  # tile sizes that are no numbers
        rows = [*PLAIN_TIFF, (322, kind, count, 8), (323, kind, count, 8)]
        yield tiff(*sorted(rows), data=b"\xff" * 400)
    yield from (bmp(8000, 8000, 1, b"\1\0\0\0" * 8000), bmp(8000, 8000, 2, b"\1\0\0\0" * 8000),
                bmp(8000, 8000, 1, b"\0\2\0\1" * 8000), bmp(-8, 8, 0, bytes(64)))  # fmt: skip
    yield from (b"P3 2000 2000 255\n" + b"1 " * 6_000_000, b"P1 8000 8000\n" + b"1" * 9_000_000,
                b"P6 8000 8000 65535\n" + bytes(100), b"P7\nWIDTH 99999\n", b"Pf 8000 8000 1\n",
                b"P6 " + b"#" + b"a" * (5 << 20))  # fmt: skip


def test_images_that_unpack_to_more_than_they_are(tmp_path):
    paths = written(tmp_path, images(), ".img")
    assert_bounded(paths, as_image)


def test_what_is_decoded_in_python_is_refused():
    for data, words in ((bmp(8, 8, 1, b"\1\0" * 8), "a BMP with run lengths"),
                        (b"P3 1 1 255\n1 1 1\n", "of numbers in letters")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{words}, which takes minutes; save it as a PNG"):
            load(data)
    assert load(b"P6 1 1 255\n\1\2\3").getpixel((0, 0)) == (1, 2, 3)


def test_heads_of_many_parts():
    comment = b"P6 #" + b"a" * 60_000 + b"\n1 1 255\n\1\2\3"
    for data in (comment, png(*[chunk(b"tEXt", b"a\0b")] * 20_000), jpeg(*[b""] * 20_000),
                 jpeg()[:2] + b"\xff" * 60_000 + jpeg()[2:]):  # fmt: skip
        with pytest.raises(ValueError, match="more parts than an image file has"):
            load(data)
    assert load(png(*[chunk(b"tEXt", b"a\0b")] * 500)).size == (8, 8)


def test_tiles_of_a_tiff():
    rows = [row for row in PLAIN_TIFF if row[0] not in (273, 278, 279)]
    good = [*rows, (322, 3, 1, 16), (323, 3, 1, 16), (324, 4, 1, 300), (325, 4, 1, 256)]
    assert load(tiff(*good, data=bytes(600))).size == (8, 8)
    other = [*rows, (322, 4, 1, 1 << 20), (323, 4, 1, 1 << 20), *good[-2:]]
    with pytest.raises(ValueError, match="1,048,576 x 1,048,576 px, larger than 64 megapixels"):
        load(tiff(*other, data=bytes(600)))
    with pytest.raises(ValueError, match="tiles have no size|Invalid tile dimensions"):
        load(tiff(*rows, (322, 3, 1, 16), *good[-2:], data=bytes(600)))


def test_a_photo_is_still_turned_upright():
    small = b"II*\0" + struct.pack("<L", 8) + tags((274, 3, 1, 6))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, "JPEG")
    data = buffer.getvalue()
    segment = b"\xff\xe1" + struct.pack(">H", len(small) + 8) + b"Exif\0\0" + small
    assert load(data[:2] + segment + data[2:]).size == (4, 8)


# ------------------------------------------------------------------ sets of shards


def replaced(folder, data, extension="png", count=8):
    """A set whose sample 2 is another file, the index saying so."""
    index = grey_set(folder, [count], extension)
    places = {}
    with tarfile.open(folder / "000000.tar") as old:
        members = [(m, old.extractfile(m).read()) for m in old]
    rows = []
    with tarfile.open(folder / "new.tar", "w", format=tarfile.GNU_FORMAT) as new:
        for member, content in members:
            if member.name == f"k0002.{extension}":
                content = data
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    with tarfile.open(folder / "new.tar") as new:
        for member in new:
            places[member.name] = member.offset_data, member.size
    rows = [places[f"k{n:04d}.{kind}"] for n in range(count) for kind in (extension, "json")]
    (folder / "new.tar").replace(folder / "000000.tar")
    np.save(folder / "offsets.npy", np.array(rows, dtype=np.int64).reshape(count, 4))
    raw = json.loads((folder / "index.json").read_text())
    raw["shards"][0]["bytes"] = (folder / "000000.tar").stat().st_size
    (folder / "index.json").write_text(json.dumps(raw))
    return index


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_an_oversized_image_within_a_shard_is_replaced(tmp_path, extension):
    """It is refused by its head, and the training takes another sample."""
    heads = {"png": png(width=13_000, height=13_000)[:100] + bytes(50), "jpg": b"", "webp": b""}
    if extension == "jpg":
        data = bytearray(jpeg())
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
        heads["jpg"] = bytes(data)
    if extension == "webp":
        sides = (16_383 - 1).to_bytes(3, "little")
        heads["webp"] = (b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10)
                         + bytes(4) + sides * 2)  # fmt: skip
    for split in ("train", "val"):
        replaced(tmp_path / split, heads[extension], extension)
    reader = Reader(read_index(tmp_path / "train"), open_files=1)
    with pytest.raises(ValueError, match=rf"k0002.{extension}.*px instead of \(6, 8\)"):
        reader.image(2)
    with pytest.raises(ValueError, match="larger than 64 megapixels"):
        decode(heads[extension], extension)
    loader = iter(data_of(tmp_path, max_bad_fraction=0.5).train_dataloader())
    batches = [next(loader) for _ in range(4)]
    assert all(tuple(batch["image"].shape) == (4, 3, *SIZE) for batch in batches)
    skipped = [reason for batch in batches for reason in batch.get("skipped", [])]
    assert skipped and all("px instead of (6, 8)" in reason for reason in skipped)


def edited_header(folder, edit):
    """A set whose second member has another header."""
    grey_set(folder, [3])
    path = folder / "000000.tar"
    data = bytearray(path.read_bytes())
    start = int(np.load(folder / "offsets.npy")[0, 2]) - 512
    info = tarfile.TarInfo.frombuf(bytes(data[start : start + 512]), "utf-8", "strict")
    edit(info)
    data[start : start + 512] = info.tobuf(tarfile.GNU_FORMAT)[-512:]
    path.write_bytes(data)
    return folder


def test_members_of_tars(tmp_path):
    """GNU's sparse and long names, pax headers, links, devices: no reader follows any of them."""

    def kind(value):
        return lambda info: setattr(info, "type", value)

    edits = [kind(k) for k in (b"S", b"L", b"K", b"x", b"g", b"1", b"2", b"3", b"6", b"\x00", b"V")]
    edits += [lambda i: setattr(i, "size", 1 << 60), lambda i: setattr(i, "name", "../../x"),
              lambda i: setattr(i, "name", "\x1b[2J"), lambda i: setattr(i, "size", 0),
              lambda i: setattr(i, "linkname", "/etc/passwd"),
              lambda i: setattr(i, "mtime", -1)]  # fmt: skip
    paths = [edited_header(tmp_path / f"{n}", edit) for n, edit in enumerate(edits)]
    assert_bounded(paths, as_set)


def record(tmp_path, text):
    folder = tmp_path / "set"
    grey_set(folder, [3])
    index = read_index(folder)
    offset, size = (int(x) for x in index.offsets[0, 2:])
    with open(folder / "000000.tar", "r+b") as file:
        file.seek(offset)
        file.write(text.ljust(size)[:size])
    return Reader(index, open_files=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"[" * 30, "no JSON"), (b"[1]", "a list instead of a record"), (b"\xff", "no Unicode"),
     (b'{"a":1,"a":2}', "one key twice"), (b"null", "None instead of a record")],
)  # fmt: skip
def test_a_sample_s_record(tmp_path, text, words):
    with pytest.raises(ValueError, match=f"json: .*{words}"):
        record(tmp_path, text).json(0)


def test_indexes_of_ten_million_shards(tmp_path):
    grey_set(tmp_path / "good", [3])
    raw = json.loads((tmp_path / "good/index.json").read_text())
    shard = json.dumps(raw["shards"][0])
    begin, _, end = json.dumps({**raw, "shards": 0}).partition('"shards": 0')
    texts = {"many": f'{begin}"shards": [{",".join([shard] * (MAX_SHARDS + 1))}]{end}'}
    texts["list"] = "[" + "[]," * (20 << 20) + "[]]"
    texts["text"] = '{"a":[' + '"ab",' * (13 << 20) + '"ab"]}'
    texts["failed"] = (
        f'{begin}"shards": [{shard}], "failed": [{"{},".join([""] * 190_000)}{{}}]{end}'
    )
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(text)
        (tmp_path / name / "offsets.npy").symlink_to(tmp_path / "good/offsets.npy")
    (tmp_path / "sparse").mkdir()
    with open(tmp_path / "sparse/index.json", "wb") as file:
        file.truncate(1 << 40)
    assert_bounded([tmp_path / name for name in (*texts, "sparse")], as_set)
    with pytest.raises(DataError, match="100,001 shards, more than 100,000|values"):
        read_index(tmp_path / "many")
    with pytest.raises(DataError, match="67,108,865 bytes, more than 67,108,864"):
        read_index(tmp_path / "sparse")


# ------------------------------------------------------------------ sources


def zip_of(entries, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=9) as file:
        for name, data in entries:
            file.writestr(name, data)
    return buffer.getvalue()


def test_zip_files_of_images(tmp_path):
    bomb = zip_of([("a.png", bytes(300 << 20))])
    twice = zip_of([("a.png", png()), ("b.png", png())], zipfile.ZIP_STORED)
    last = twice.rindex(b"PK\x01\x02")
    overlapping = twice[: last + 42] + bytes(4) + twice[last + 46 :]
    encrypted = bytearray(zip_of([("a.png", png())]))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(mark) + place] |= 1
    files = [bomb, overlapping, bytes(encrypted), twice[:-30], zip_of([("../../x.png", png())]),
             zip_of([(f"{n}.png", b"") for n in range(3000)]), zip_of([("x.png", zip_of([]))]),
             zip_of([("a.png", b"x" * 99)], zipfile.ZIP_LZMA),
             b"PK\x05\x06" + bytes(18)]  # fmt: skip
    assert_bounded(written(tmp_path, files, ".zip"), as_source)
    with pytest.raises(ValueError, match="larger than 256 MiB"):
        open_source(tmp_path / "00000.zip").read("a.png")


def database(path, entries):
    with lmdb.open(str(path), map_size=1 << 24) as base, base.begin(write=True) as transaction:
        for number in range(entries):
            transaction.put(f"key{number:04d}".encode(), png() * (1 + 40 * (number == 3)))
    return path


def test_databases(tmp_path):
    """Words of every page set to small and large numbers."""
    good = (database(tmp_path / "good", 60) / "data.mdb").read_bytes()
    random = np.random.default_rng(0)
    paths = []
    for number in range(40):
        data = bytearray(good)
        for _ in range(1 + number % 4):
            place = 8 * int(random.integers(len(good) // 8))
            place = place % 4096 if number % 3 else place
            value = (0, 1, 1 << 16, 1 << 40, (1 << 64) - 1)[int(random.integers(5))]
            data[place : place + 8] = value.to_bytes(8, "little")
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "data.mdb").write_bytes(data)
        paths.append(folder)
    assert_bounded(paths, as_source)


def test_an_entry_of_gigabytes_is_left_out(tmp_path):
    """The answers behind it are still those to their questions."""
    path = tmp_path / "base"
    with lmdb.open(str(path), map_size=1 << 29) as base, base.begin(write=True) as transaction:
        transaction.put(b"a", bytes(MAX_BYTES + 1))
        transaction.put(b"b", png())
    found = open_source(path)
    with pytest.raises(ValueError, match="larger than 256 MiB"):
        found.read("a")
    assert found.read("b") == png()


def test_sources_that_are_no_files(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a/x.png")
    (tmp_path / "a/y.png").symlink_to("/dev/zero")
    (tmp_path / "a/z.png").symlink_to("z.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b/data.mdb")
    os.mkfifo(tmp_path / "c.zip")
    (tmp_path / "d.zip").symlink_to("/dev/zero")
    names = ("a", "b", "c.zip", "d.zip", "nothing", "e" * 300)
    assert_bounded([tmp_path / name for name in names], as_source, as_set)
    assert open_source(tmp_path / "a").items() == []


def test_points_of_faces(tmp_path):
    texts = ["[" * 100_000, '{"a":' * 100_000, '{"a":[' + '"ab",' * (5 << 20) + "1]}", "[]",
             "1e999",
             '{"a": [' + "[]," * (5 << 20) + "[]]}", '{"a": [[[1,2]]]}', '{"\\ud800": [[1]]}',
             '{"settings": 1, "images": [1]}', '{"settings":1,"images":[{"source":[],"faces":{}}]}',
             '{"\\u001b[2J": 7}', '{"a": [[1e400, 2]]}', '{"a": ' + "9" * 5000 + "}",
             ""]  # fmt: skip
    paths = written(tmp_path, (text.encode() for text in texts), ".json")
    rows = ["a," + "1," * 135 + "1", "a,1", '"' * 9, "a\0b,1", "a," + "9" * 200_000, "\x1b[2J,x,y"]
    (tmp_path / "c").mkdir()
    paths += written(tmp_path / "c", (row.encode() for row in rows), ".csv")
    assert_bounded(paths, LandmarksFile)
    assert USER_ERRORS
