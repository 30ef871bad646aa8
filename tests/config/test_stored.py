"""What a file's config may not do: run code, read the environment, write, ask addresses."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ganinv.cli.main import main
from ganinv.config.allowed import ALLOWED, NESTED
from ganinv.config.build import build_method
from ganinv.config.ranges import RANGES
from ganinv.config.stored import StoredConfig, build_stored, check_networks
from ganinv.config.values import parameters_of
from ganinv.core.errors import USER_ERRORS, WeightsError
from ganinv.core.safe.io import read_safetensors, sha256_file, write_safetensors
from ganinv.evaluation.open import load_trained, open_model
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import load_generator
from ganinv.interop import bundle
from tests.house.tree import built, composed, names
from tests.interop.models import tiny
from tests.runs import evaluated, plain_overrides, run

ATTACKS = {  # what each would do with the path {canary}
    "a shell": {
        "_target_": "distutils.spawn.spawn",
        "cmd": ["sh", "-c", "touch {canary}"],
        "search_path": False,
    },
    "system": {"_target_": "os.system", "_args_": ["touch {canary}"]},
    "subprocess": {"_target_": "subprocess.check_output", "args": ["touch", "{canary}"]},
    "a pickle": {"_target_": "torch.storage._load_from_bytes", "b": "{canary}"},
    "a pipe": {"_target_": "webdataset.gopen", "url": "pipe:touch {canary}", "mode": "rb"},
    "a mail program": {"_target_": "imaplib.IMAP4_stream", "command": "touch {canary}"},
    "a file": {
        "_target_": "pathlib.Path.write_text",
        "_args_": [{"_target_": "pathlib.Path", "_args_": ["{canary}"]}, "x"],
    },
    "a repository": {"_target_": "torch.hub.load", "repo_or_dir": "{canary}", "source": "local"},
    "an eval": {"_target_": "builtins.eval", "_args_": ["open('{canary}', 'w')"]},
    "an import": {"_target_": "{canary}.anything"},
    "of ganinv": {"_target_": "ganinv.core.safe.io.write_atomic", "path": "{canary}"},
    "a private part": {"_target_": "ganinv.encoder.psp.torch.save", "f": "{canary}"},
    "nested": {
        "_target_": "ganinv.method.psp.PSp",
        "noise": {"_target_": "distutils.spawn.spawn", "cmd": ["touch", "{canary}"]},
    },
    "deeply nested": {
        "_target_": "ganinv.encoder.psp.GradualStyleEncoder",
        "input_size": [{"a": {"_target_": "os.mkdir", "path": "{canary}"}}],
    },
    "partial": {"_partial_": True, "_target_": "os.mkdir", "path": "{canary}"},
    "positional": {
        "_target_": "ganinv.task.image.Image",
        "_args_": [{"_target_": "os.mkdir", "path": "{canary}"}],
    },
    "not recursive": {
        "_target_": "ganinv.task.image.Image",
        "_recursive_": False,
    },
    "no text": {"_target_": 7},
    "a list": ["ganinv.task.image.Image"],
    "nothing": None,
}
GROUPS = ("generator", "encoder", "task", "optimizer", "method", "discriminator")


def aimed(node: Any, canary: Path) -> Any:
    """An attack with its path filled in."""
    return json.loads(json.dumps(node).replace("{canary}", str(canary)))


def rewritten(checkpoint: Path, target: Path, **parts: Any) -> Path:
    """A checkpoint with other parts in its config."""
    content = torch.load(checkpoint, weights_only=True)
    content["ganinv"]["config"] |= parts
    torch.save(content, target)
    return target


@pytest.fixture(scope="module")
def checkpoint(assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "run"
    run([*plain_overrides("e4e", *assets), f"run_dir={folder}", "trainer.max_kimg=0.008"])
    return folder / "checkpoints" / "last.ckpt"


# ------------------------------------------------------------------ code


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("group", ALLOWED)
def test_only_listed_constructors_are_built(group, name, tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(WeightsError, match="whose config has"):
        build_stored(group, aimed(ATTACKS[name], canary), "bad.ckpt")
    assert not canary.exists()


TOURED = {"a shell", "nested", "positional", "not recursive", "no text", "nothing"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] * (n not in TOURED)) for n in ATTACKS]
)
def test_a_checkpoint_runs_nothing(name, checkpoint, tmp_path, capsys):
    """By every command that opens a checkpoint, in two places of its config; the others are
    `test_only_listed_constructors_are_built`."""
    canary, turn = tmp_path / "canary", list(ATTACKS).index(name) % (len(GROUPS) - 1)
    for group in (GROUPS[turn], "discriminator"):
        node = aimed(ATTACKS[name], canary)
        file = rewritten(checkpoint, tmp_path / "bad.ckpt", **{group: node})
        with pytest.raises(WeightsError, match="whose config has"):
            load_trained(file)
    with pytest.raises(WeightsError):
        evaluated(f"checkpoint={file}", f"output={tmp_path / 'report'}")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    for command in (
        ["invert", file, tmp_path / "photos", "--out", tmp_path / "out"],
        ["export", file, "--to", "safetensors", "--out", tmp_path / "out.safetensors"],
    ):
        assert main([str(word) for word in command]) == 1
        assert "bad.ckpt, whose config has discriminator" in capsys.readouterr().err
    file = rewritten(checkpoint, tmp_path / "bad.ckpt", dataset=aimed(ATTACKS[name], canary))
    words = "whose config has dataset" if ATTACKS[name] else "names no dataset"
    with pytest.raises(USER_ERRORS, match=words):
        evaluated(f"checkpoint={file}", f"output={tmp_path / 'report'}")
    assert not canary.exists() and not (tmp_path / "report").exists()


def test_a_part_within_a_part_is_looked_up_too(checkpoint, tmp_path):
    canary = tmp_path / "canary"
    method = torch.load(checkpoint, weights_only=True)["ganinv"]["config"]["method"]
    for name, words in (
        ("a shell", "method.optimizer_D._target_=distutils.spawn.spawn; expected ganinv's own: "),
        ("of ganinv", "method.optimizer_D._target_=ganinv.core.safe.io.write_atomic"),
    ):
        nested = method | {"optimizer_D": aimed(ATTACKS[name], canary)}
        with pytest.raises(WeightsError, match=words):
            load_trained(rewritten(checkpoint, tmp_path / "bad.ckpt", method=nested))
    assert not canary.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_bundle_runs_nothing(name, tmp_path):
    """The dataset of a bundle's config, which evaluate.py reads where none is typed."""
    canary, generator = tmp_path / "canary", tmp_path / "G.safetensors"
    model = tiny()
    save_bundle(generator, model.G, {"recipe": "random weights for tests"})
    model.G.source, model.G.sha256 = str(generator), sha256_file(generator)
    node = aimed(ATTACKS[name], canary)
    bundle.write(tmp_path / "bad.safetensors", model, {"dataset": node, "task": node})
    assert open_model(tmp_path / "bad.safetensors").words.endswith("a bundle")
    words = "names no dataset" if not node else "bad.safetensors, whose config has dataset"
    with pytest.raises(USER_ERRORS, match=words):
        evaluated(f"checkpoint={tmp_path / 'bad.safetensors'}", f"output={tmp_path / 'report'}")
    assert not canary.exists()


# ------------------------------------------------------------------ interpolations, addresses


@pytest.fixture
def server():
    """A server that remembers what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            """Not to the screen."""

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}", asked
    found.shutdown()
    found.server_close()


def shards(root: str) -> dict[str, Any]:
    return composed("train", ["dataset=shards", f"dataset.root='{root}'"])["dataset"] | {
        "image_size": [64, 64], "generator_resolutions": [64],
    }  # fmt: skip


def test_the_environment_is_sent_nowhere(checkpoint, tmp_path, monkeypatch, server, capsys):
    monkeypatch.setenv("CANARY_KEY", "secret-of-the-user")
    address, asked = server
    node = shards("/nowhere") | {"root": f"{address}/${{oc.env:CANARY_KEY}}"}
    file = rewritten(checkpoint, tmp_path / "bad.ckpt", dataset=node)
    with pytest.raises(WeightsError, match=r'expected text without "\$\{"') as caught:
        evaluated(f"checkpoint={file}", f"output={tmp_path / 'report'}")
    assert "secret" not in str(caught.value)
    out = tmp_path / "out.safetensors"
    assert main(["export", str(file), "--to", "safetensors", "--out", str(out)]) == 1
    assert "secret" not in capsys.readouterr().err
    assert asked == [] and not out.exists() and not (tmp_path / "report").exists()


def test_no_address_of_a_file_is_asked(checkpoint, tmp_path, server):
    address, asked = server
    file = rewritten(checkpoint, tmp_path / "far.ckpt", dataset=shards(f"{address}/set"))
    with pytest.raises(USER_ERRORS, match="add dataset=shards dataset.root=ADDRESS"):
        evaluated(f"checkpoint={file}", f"output={tmp_path / 'report'}")
    assert asked == []


def test_nothing_is_drawn_where_a_file_says(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "own"))
    named = tmp_path / "named"
    dataset = torch.load(checkpoint, weights_only=True)["ganinv"]["config"]["dataset"]
    node = dataset | {"cache": str(named), "num_train": 2, "num_val": 2, "num_test": 2}
    data = build_stored("dataset", node, "bad.ckpt")
    data.prepare_data()
    assert data.count("test") == 2
    assert not named.exists() and list((tmp_path / "own").iterdir())
    monkeypatch.setenv("GANINV_CACHE", str(tmp_path / "third"))
    there = build_stored("dataset", node | {"cache": str(tmp_path / "own")}, "good.ckpt")
    there.prepare_data()  # what is drawn there already is read
    assert there.root.is_relative_to(tmp_path / "own") and not (tmp_path / "third").exists()


# ------------------------------------------------------------------ arguments


PSP = {
    "_target_": "ganinv.encoder.psp.GradualStyleEncoder",
    "input_size": 64,
    "input_nc": 3,
    "trunk": "ir_se_small",
    "trunk_weights": None,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_nc": "3"}, "encoder.input_nc=3; expected a whole number of at least 1"),
        ({"input_nc": True}, "encoder.input_nc=True; expected a whole number"),
        ({"input_nc": 3.0}, "encoder.input_nc=3.0; expected a whole number"),
        ({"input_nc": 10**9}, "expected a whole number of at most 1,024"),
        ({"input_nc": 10**4000}, "encoder.input_nc of many digits"),
        ({"input_nc": float("nan")}, "expected a whole number of at least 1"),
        ({"input_size": [64] * 1000}, "a list of at most 256"),
        ({"input_size": []}, "a list of 2"),
        ({"input_size": {"a": 1}}, "encoder.input_size=a dict; expected a whole number"),
        ({"trunk": "a\nb"}, "text of one line"),
        ({"trunk": "x" * 5000}, "text of at most 4,096 characters"),
        ({"trunk": "${oc.env:HOME}"}, 'expected text without "\\$\\{"'),
        ({"depht": 1}, "encoder.depht; expected an argument of GradualStyleEncoder"),
        ({"trunk": torch.zeros(1)}, "encoder.trunk of type Tensor; expected plain data"),
        ({"trunk_weights": {7: 1}}, "encoder.trunk_weights with a key of another kind"),
    ],
)
def test_arguments_are_typed_and_bounded(change, words):
    with pytest.raises(WeightsError, match=words) as caught:
        build_stored("encoder", PSP | change, "bad.ckpt", _partial_=True)
    assert len(str(caught.value)) < 600


def test_a_config_that_swells_is_refused_at_once():
    shared: Any = ["x"]
    for _ in range(40):
        shared = [shared, shared]
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]
    for value in (shared, deep, ["x"] * 20_000):
        with pytest.raises(WeightsError, match="more than a config has"):
            StoredConfig({"task": value}, "bad.ckpt")
    with pytest.raises(WeightsError, match="no mapping; expected the config of a training run"):
        StoredConfig(["task"], "bad.ckpt")


def test_a_network_larger_than_the_file_takes_no_memory(checkpoint, tmp_path):
    config = torch.load(checkpoint, weights_only=True)["ganinv"]["config"]
    huge = config["encoder"] | {"input_nc": 1024}
    with pytest.raises(WeightsError, match="E with .*instead of"):
        load_trained(rewritten(checkpoint, tmp_path / "bad.ckpt", encoder=huge))
    layers = config["discriminator"] | {"layers": 60}
    with pytest.raises(WeightsError, match="D with no "):
        load_trained(rewritten(checkpoint, tmp_path / "bad.ckpt", discriminator=layers))


def test_constructors_that_exist_only_with_more_arguments():
    make = build_stored(
        "optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1, "betas": [0.5, 0.9]}
    )
    optimizer = make([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.defaults["lr"] == 0.1 and optimizer.defaults["betas"] == (0.5, 0.9)
    with pytest.raises(WeightsError, match="lr=abc; expected a number above 0"):
        build_stored("optimizer", {"_target_": "torch.optim.Adam", "lr": "abc"})
    with pytest.raises(WeightsError, match=r"task with settings that make no Segmentation \(.*"):
        build_stored("task", {"_target_": "ganinv.task.paired.Segmentation"})


WRONG = (None, True, -1, 0, 2**40, 1.5, float("inf"), "", "abc", [], [1], {}, {"_target_": "a.b"})


def leaves(node: Any, path: tuple[str, ...] = ()) -> Any:
    """The keys that lead to every value, mappings too."""
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))


@pytest.mark.parametrize("group", ["encoder", "discriminator", "method", "optimizer", "task"])
def test_any_wrong_value_ends_in_a_sentence(group, checkpoint, assets):
    """A fuzz of structure: every value of the config, of every second wrong kind in turn, or left
    out."""
    content = torch.load(checkpoint, weights_only=True)
    generator = load_generator(weights=str(assets[0]), resolution=64, kind=None, origin=None)
    refused = 0
    for i, path in enumerate(leaves(content["ganinv"]["config"][group])):
        for wrong in (*WRONG[i % 2 :: 2], "left out"):
            config = json.loads(json.dumps(content["ganinv"]["config"]))
            node = config[group]
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = wrong
            if wrong == "left out":
                del node[path[-1]]
            try:
                cfg = StoredConfig(config, "bad.ckpt")
                check_networks(cfg, generator, content["state_dict"])
                build_method(cfg, generator, training=False)
            except USER_ERRORS as error:
                assert len(str(error)) < 2000
                refused += 1
    assert refused >= 6


# ------------------------------------------------------------------ the list itself


@pytest.mark.parametrize("group", ALLOWED)
def test_every_choice_of_conf_is_listed(group):
    """A yaml whose class is missing would train, and its checkpoints would not open."""
    inner = {*NESTED.get(group, ())}
    inner |= {deeper for other in inner for deeper in NESTED.get(other, ())}
    within = {name for other in inner for name in ALLOWED[other]}
    for name in names(group):
        entry = "evaluate" if group == "metric" else "train"
        chosen = [f"+{group}={name}" if group == "backbone" else f"{group}={name}"]
        chosen += [f"method={name}"] if group == "discriminator" else []
        part = composed(entry, chosen).get(group)
        for keys, node in built(part):
            outer = len(keys) <= (1 if group in ("loss", "metric") else 0)
            assert node["_target_"] in ({*ALLOWED[group]} if outer else within), (name, keys)


def test_every_argument_of_the_list_has_a_type_and_every_number_a_range():
    run_time = {"params", "maximize", "foreach", "capturable", "differentiable", "fused"}
    for group, constructors in ALLOWED.items():
        for name, constructor in constructors.items():
            for key, parameter in parameters_of(constructor).items():
                words = str(parameter.annotation)
                assert "Any" not in words or key in run_time, (group, name, key)
                if "int" in words or "float" in words:
                    assert key in RANGES or key in run_time, (group, name, key)


def test_the_config_of_every_method_opens_as_a_file_would_hold_it():
    for name in names("method"):
        config = StoredConfig(composed("train", [f"method={name}"]), "honest.ckpt")
        for group in ("optimizer", "task", "discriminator", "method", "encoder"):
            if group in config:
                assert build_stored(group, config[group], "honest.ckpt", _partial_=True)


def test_a_safetensors_bundle_with_an_interpolation_is_named(tmp_path):
    file = tmp_path / "b.safetensors"
    write_safetensors(file, {"x": torch.zeros(1)}, {"config": {"task": "${oc.env:HOME}"}})
    _, metadata = read_safetensors(file)
    with pytest.raises(WeightsError, match=r'expected text without "\$\{"'):
        StoredConfig(metadata["config"], file)
