"""`ganinv demo`: its work on tensors, its refusals, and its page in a real browser."""

from __future__ import annotations

import http.client
import io
import shutil
import socket
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from ganinv.cli import demo
from ganinv.cli._demo_offer import DRAWN, find_controls, first_photos, offered
from ganinv.cli._demo_work import MOST_BYTES, MOST_PHOTOS, Control, Studio
from ganinv.core.direction import Direction, write_directions
from ganinv.core.errors import ConfigError, DataError, WeightsError
from ganinv.editing.direction import move
from ganinv.evaluation.open import Opened, open_model
from ganinv.generator.importer.load import load_generator
from ganinv.interop import bundle
from ganinv.inversion.file import read_inversion
from tests.cli.commands import ok, refused
from tests.interop.models import model_of
from tests.runs import tiny_generator_file

DRAWN_CONFIG = {"dataset": {"_target_": "ganinv.dataset.module.AvatarData"}}
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The bundle of an encoder with random weights that says it was trained on drawn faces."""
    folder = tmp_path_factory.mktemp("demo")
    weights = str(tiny_generator_file(folder))
    G = load_generator(weights=weights, resolution=None, kind=None, origin=None)
    torch.manual_seed(3)
    path = folder / "encoder.safetensors"
    bundle.write(path, model_of("Encoder4Editing", G, trunk="ir_se_small"), DRAWN_CONFIG)
    return path


@pytest.fixture(scope="module")
def opened(file):
    return open_model(file)


@pytest.fixture(scope="module")
def studio(opened):
    """Two directions, two methods."""
    near = torch.eye(16)[:2]
    G = opened.generator
    controls = [Control(f"d{k}", Direction(f"d{k}", near[k : k + 1], (0, 1), 2.0)) for k in (0, 1)]
    short = ["inversion.image2stylegan.steps=3"]
    methods, refused = offered(["image2stylegan"], short, opened, None)
    assert list(methods) == ["encode", "image2stylegan"] and not refused
    return Studio(
        opened, device=G.w_avg.device, methods=methods, controls=controls, detector=None,
        size=None, strength=3.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def faces(opened, tmp_path_factory):
    return first_photos(opened, tmp_path_factory.mktemp("faces"), None)


def told():
    """(what is given as `tell`, what it was told)."""
    said = []
    return (lambda share, words: said.append((share, words))), said


def inverted(studio, paths, **changes):
    how = {"method": "encode", "steps": None, "align": False, "tell": lambda share, words: None}
    return studio.invert(paths, **how | changes)


# ------------------------------------------------------------------ the work


def test_drawn_faces_are_inverted_as_the_encoder_does(studio, faces):
    assert [path.name for path in faces] == [f"drawn-{n}.png" for n in range(1, DRAWN + 1)]
    session = inverted(studio, faces)
    assert session.names == [path.name for path in faces] and len(session.images) == DRAWN
    assert session.said.startswith("4 photos inverted by encode in ")
    with Image.open(faces[1]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert np.array_equal(session.photos[1], pixels)
    s = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        wp = studio.model.encode(s)
    torch.testing.assert_close(session.found[1].wp, wp)
    assert session.images[1].shape == (64, 64, 3) and session.images[1].std() > 0


def test_a_method_tells_its_steps_and_takes_as_many_as_asked(studio, faces):
    tell, said = told()
    session = inverted(studio, faces[:2], method="image2stylegan", steps=5, tell=tell)
    steps = [words for _, words in said if "step" in words]
    assert steps[-1] == "drawn-2.png: Image2StyleGAN, step 5 of 5" and len(steps) == 10
    shares = [share for share, _ in said]
    assert shares == sorted(shares) and 0 <= shares[0] and shares[-1] == 1
    by_yaml = studio.steps_of("image2stylegan"), studio.steps_of("encode")
    assert by_yaml == (3, None)
    alone = inverted(studio, faces[1:2], method="image2stylegan", steps=5)
    torch.testing.assert_close(alone.found[0].wp, session.found[1].wp)


def test_what_is_no_photo_is_told_and_the_others_go_on(studio, faces, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes(b"\0" * (MOST_BYTES + 1))
    bad = [tmp_path / "a.png", tmp_path / "b.png"]
    session = inverted(studio, [*bad, faces[0]])
    assert session.names == ["drawn-1.png"] and "1 photo inverted by encode" in session.said
    assert "Left out: a.png: not a PNG or JPEG" in session.said
    assert "b.png: 20 MiB; at most 20 MiB" in session.said
    with pytest.raises(DataError, match="no photo could be inverted .a.png: not a PNG"):
        inverted(studio, bad)


@pytest.mark.parametrize(
    ("count", "changes", "words"),
    [
        (0, {}, "no photo; expected 1 to 8 at a time"),
        (MOST_PHOTOS + 1, {}, "9 photos; expected 1 to 8 at a time"),
        (1, {"method": "pti"}, "the method pti; expected one of encode, image2stylegan"),
        (1, {"method": "image2stylegan", "steps": 5001}, "5001 steps; expected 1 to 5000"),
        (1, {"align": True}, "faces to be aligned without a detector"),
    ],
)
def test_what_a_visitor_may_not_ask(studio, faces, count, changes, words):
    with pytest.raises(ConfigError, match=words):
        inverted(studio, [faces[0]] * count, **changes)


def test_faces_are_aligned_where_there_is_a_detector(studio, tmp_path):
    """Five points of one face, in a photo that has it in a corner."""
    from ganinv.dataset.faces import Aligned, Face

    points = np.array([[40, 50], [70, 50], [55, 65], [44, 80], [66, 80]], dtype=np.float64)
    photo = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "group.png")
    finder = type("Finder", (), {"settings": {}, "__call__": lambda *_: [Face(points)]})()
    with_faces = Studio(
        studio.opened, device=studio.device, methods={"encode": None}, controls=[],
        detector=finder, size=None, strength=1.0,
    )  # fmt: skip
    session = inverted(with_faces, [tmp_path / "group.png"], align=True)
    folder = type("One", (), {"read": lambda _, name: (tmp_path / name).read_bytes()})()
    crop = Image.open(io.BytesIO(Aligned(folder, finder, 64).read("group.png")))
    assert np.array_equal(session.photos[0], np.asarray(crop))


def test_sliders_move_codes_and_files_hold_what_is_seen(studio, faces):
    session = inverted(studio, faces[:1])
    found = studio.edited(session, 0, [1.5, -2.0])
    step_by_step = move(session.found[0], studio.controls[0].direction, 1.5)
    step_by_step = move(step_by_step, studio.controls[1].direction, -2.0)
    assert torch.equal(found.wp, step_by_step.wp)
    assert not np.array_equal(studio.picture(found), session.images[0])
    assert np.array_equal(studio.picture(studio.edited(session, 0, [0, 0])), session.images[0])
    tell, said = told()
    paths = studio.files(session, 0, [1.5, -2.0], "d1", tell)
    names = [path.name for path in paths]
    assert names[0] == "drawn-1-d1-strip.png" and names[1] in ("drawn-1-d1.mp4", "drawn-1-d1.webp")
    assert names[2:] == [f"drawn-1-edited{end}" for end in (".png", ".npy", ".safetensors")]
    with Image.open(paths[0]) as picture:
        assert picture.size == (7 * 130 - 2, 18 + 128)
        strip = np.asarray(picture)[18::2, ::2]
    ends = studio.picture(studio.edited(session, 0, [1.5, 3.0]))
    assert np.array_equal(strip[:, -64:], ends)
    with Image.open(paths[2]) as picture:
        assert np.array_equal(np.asarray(picture), studio.picture(found))
    assert np.array_equal(np.load(paths[3]), found.wp[0].numpy())
    kept, about = read_inversion(paths[4])
    assert torch.equal(kept.wp, found.wp)
    assert about["generator_sha256"] == studio.model.G.sha256
    assert len(said) == 29 and said[0] == (0, "strip and video: 0 of 29 images")
    with pytest.raises(ConfigError, match="the direction d9; expected one of d0, d1"):
        studio.files(session, 0, [0, 0], "d9", tell)


# ------------------------------------------------------------------ what is offered


def test_a_folder_gives_a_slider_for_each_direction_of_this_generator(opened, tmp_path):
    G, vector = opened.generator, torch.ones(1, 16)
    mine = [Direction(name, vector.clone(), None, 1.0, None, G.sha256) for name in ("a", "b")]
    write_directions(tmp_path / "pair.safetensors", mine)
    write_directions(tmp_path / "smile.safetensors", [Direction("smile", vector)])
    np.save(tmp_path / "wide.npy", np.ones((1, 512), dtype=np.float32))
    (tmp_path / "notes.txt").write_text("no direction")
    controls, left_out = find_controls([tmp_path], G, 2)
    labels = [control.label for control in controls]
    assert labels == ["SeFa 0", "SeFa 1", "pair a", "pair b", "smile"]
    assert list(left_out) == [str(tmp_path / "wide.npy")]
    assert "width 512" in left_out[str(tmp_path / "wide.npy")]
    with pytest.raises(WeightsError, match="width 512"):
        find_controls([tmp_path / "wide.npy"], G, 0)
    with pytest.raises(ConfigError, match="which is not there"):
        find_controls([tmp_path / "gone"], G, 0)
    again = find_controls([tmp_path / "smile.safetensors"] * 2, G, 0)[0]
    assert [control.label for control in again] == ["smile", "smile (2)"]


def test_a_method_that_cannot_work_is_left_out_with_its_reason(opened):
    methods, left_out = offered(["encode", "bdinvert", "pti"], [], opened, None)
    assert list(methods) == ["encode", "pti"]
    assert "base_code" in left_out["bdinvert"]


def test_first_photos_are_drawn_only_where_the_model_knows_them(opened, tmp_path):
    plain = Opened(opened.path, opened.network, "bundle", "words")
    assert first_photos(plain, tmp_path, None) == []
    (tmp_path / "given").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "given/one.png")
    assert [p.name for p in first_photos(plain, tmp_path, tmp_path / "given")] == ["one.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--share"], "--share, which leads photos over another company's server"),
        (["--components", "61"], "--components 61; expected 0 to 60"),
        (["--strength", "nan"], "--strength nan; expected a number above 0"),
        (["--port", "0"], "--port 0; expected 1 to 65535"),
        (["--methods", "ptj"], "--methods ptj; expected of bdinvert, clone"),
        (["--methods", "bdinvert"], "base_code"),
        (["--size", "48"], "--size 48 with a generator of 64 px"),
        (["--device", "tpu"], "--device tpu; expected auto, cpu"),
    ],
)
def test_what_the_command_refuses(file, capsys, monkeypatch, options, words):
    monkeypatch.setattr(demo, "find_spec", lambda name: name)
    refused(capsys, words, "demo", file, *options)


def test_without_gradio_the_command_names_its_extra(file, capsys, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    refused(capsys, 'pip install "ganinv[demo]"', "demo", file)


# ------------------------------------------------------------------ the page


def pixels_of(page, name):
    """uint8 [H,W,3] of an image on the page."""
    address = page.locator(f"#{name} img").first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB"))


def wait_for(page, name, words):
    """Until a text box says it."""
    page.wait_for_function(
        "([name, words]) => document.querySelector(`#${name} textarea`)?.value.includes(words)",
        arg=[name, words], timeout=120_000,
    )  # fmt: skip


def changed(page, name, before):
    """Until an image is another one; it."""
    page.wait_for_function(
        "([name, before]) => document.querySelector(`#${name} img`)?.src !== before",
        arg=[name, before], timeout=120_000,
    )  # fmt: skip
    return pixels_of(page, name)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_visitor_uploads_inverts_moves_a_slider_and_downloads(
    file, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium or chromium-headless-shell on this machine")
    photo = np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "mine.png")
    asked = set()

    def visit(address):
        with play.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(120_000)  # of a machine that others use
            page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
            page.goto(address)
            use(page, address)
            browser.close()

    def use(page, address):
        wait_for(page, "said", "4 photos inverted by encode")  # it opens alive
        page.get_by_label("Clear").first.click()
        page.locator("#photos input[type=file]").set_input_files(tmp_path / "mine.png")
        page.locator("#photos img").first.wait_for()
        page.locator("#invert").click()
        wait_for(page, "said", "1 photo inverted by encode")
        before, first = pixels_of(page, "edited"), page.locator("#edited img").get_attribute("src")
        assert np.array_equal(before, pixels_of(page, "found"))
        assert pixels_of(page, "photo").shape == (64, 64, 3)
        page.locator("#slider-0 input[type=number]").fill("3")
        page.locator("#slider-0 input[type=number]").press("Tab")
        after = changed(page, "edited", page.evaluate("url => new URL(url, location).href", first))
        assert np.abs(after.astype(int) - before).mean() > 1
        page.get_by_text("Strip, video and code").click()
        page.locator("#make").click()
        page.locator("#files a[download$='.npy'], #files a[href$='.npy']").first.wait_for()
        link = page.locator("#files a[href$='.npy']").first.get_attribute("href")
        assert np.load(io.BytesIO(page.request.get(link).body())).shape == (10, 16)
        answer = refused_upload(address)
        assert (answer.status, answer.read()) == (413, b"at most 180 MiB at a time")

    monkeypatch.setattr(demo, "wait", visit)
    said = ok(capsys, "demo", file, "--methods", "encode", "--components", 2, "--port", free_port())
    assert "http://127.0.0.1:" in said and "password" not in said
    assert asked <= {"127.0.0.1", None}


def refused_upload(address):
    """The answer to the head of a request that announces too much."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Length", str(1 << 30))
    connection.endheaders()
    return connection.getresponse()
