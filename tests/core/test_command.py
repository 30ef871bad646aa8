"""Words of commands that are pasted: really parsed by a shell's rules and by Hydra."""

import shlex
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ganinv.core.command import entry, override, printable

TEXTS = [
    "/data/my runs/20260101", "/a=b", "/a,b", "/a(1)", "/it's", '/say "x"', "/a\\b", "/end\\",
    "/a\\'b", "/${x}", "/\\${x}", "/$HOME", "/[x]", "/{x: 1}", "/a#b", "/tag!", "/ü/日本", "null",
    "1", "1e3", "nan", "true", "a:b", "~/x", " lead", "trail ", "${oc.env:HOME}", "", "'",
    "\\", "''", "/a&b;c|d", "/*?", "%20", "\\\\${x}\\", "-x",
]  # fmt: skip


def read_back(word):
    (typed,) = shlex.split(word)
    parsed = OverridesParser.create().parse_override(typed)
    cfg = OmegaConf.create({})
    OmegaConf.update(cfg, parsed.key_or_group, parsed.value(), force_add=True)
    return cfg[parsed.key_or_group]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_as_it_is(text):
    assert read_back(override("run_dir", text)) == text


@given(st.text(st.characters(exclude_categories=["C"]), max_size=30))
@example("a'\\")
def test_any_text_arrives_as_it_is(text):
    assert read_back(override("run_dir", text)) == text


def test_a_shell_agrees():
    for text in TEXTS:
        word = override("run_dir", text)
        said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, text=True)
        assert said.stdout == shlex.split(word)[0]


def test_a_plain_path_stays_plain():
    path = "/data/runs/20260101-000000-psp-avatars64_2/checkpoints/last.ckpt"
    assert override("resume", path) == f"resume={path}"


def test_what_would_steer_a_terminal_is_shown_as_its_code():
    assert printable("a\x1b[31mred\x07") == "a\\x1b[31mred\\x07"
    assert printable("a\nb\r\u202ec\x9b") == "a\\nb\\r\\u202ec\\x9b"
    assert printable("grün 日本") == "grün 日本" and printable("x" * 9, 4) == "xxxx..."


@pytest.mark.parametrize(
    ("started", "packaged", "train", "evaluate"),
    [
        ("train.py", False, "python train.py", "python evaluate.py"),
        ("../my clone/train.py", False, "python '../my clone/train.py'",
         "python '../my clone/evaluate.py'"),
        ("/venv/bin/ganinv", False, "ganinv train", "ganinv evaluate"),
        ("/venv/bin/ganinv", True, "ganinv train", "ganinv evaluate"),
        ("evaluate.py", True, "python train.py", "python evaluate.py"),  # of a clone beside it
        ("notebook.py", True, "ganinv train", "ganinv evaluate"),
        ("notebook.py", False, "python train.py", "python evaluate.py"),
    ],
)  # fmt: skip
def test_what_is_advised_is_what_works_for_whoever_is_told(
    started, packaged, train, evaluate, monkeypatch
):
    monkeypatch.setattr("sys.argv", [started])
    monkeypatch.setattr("ganinv.core.command.installed", lambda: packaged)
    assert (entry("train"), entry("evaluate")) == (train, evaluate)
