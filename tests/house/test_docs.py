"""What the documents say is there, is there; every command in them is one that runs."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ganinv.cli.main import build_parser
from ganinv.core.command import ENTRIES
from tests.house.tree import CONF, ROOT, assert_none, at, composed, sources, tracked

MARKDOWN = [p for name in ("README.md", "CONTRIBUTING.md") if (p := ROOT / name).is_file()]
MARKDOWN += sorted((ROOT / "docs").glob("*.md"))
MADE_BY_RUNNING = ("runs", "data", "outputs", "multirun", "wandb", "checkpoints", "grids",
                   "config.yaml")  # fmt: skip
WEIGHTS = {".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".onnx"}
LARGE: dict[str, str] = {  # files over 1 MB, and why
    "ganinv/generator/weights/stylegan2_avatars64.safetensors": "the built-in domain's generator",
}
TAKES_VALUE = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package"}
TAKES_VALUE |= {"-p", "--cfg", "-c"}
HOSTS = re.compile(r"pypi\.org|pythonhosted\.org|artif[a]ctory|index[-]url|download\.pytorch")
MACHINE = re.compile(r"(?<![\w.-])/(work|root|Users|home/[a-z]\w*)/")

# ------------------------------------------------------------------ paths


def paths(text: str) -> Iterator[tuple[int, str]]:
    """(line, path) of relative links and of whatever in backticks looks like a path of ours."""
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    for number, line in enumerate(text.splitlines(), 1):
        for link in re.findall(r"\]\(([^)#\s]+)", line):
            if "://" not in link and not link.startswith("mailto:"):
                yield number, link
        for word in re.findall(r"`([^`\s]+)`", line):
            first = word.split("/")[0]
            file = re.fullmatch(r"[\w.-]+\.(py|md|yaml|toml|cff|txt)(:[\w.]+)?", word)
            if ("/" in word and first in top) or (file and first[0] != "."):
                yield number, word


def path_fault(document: Path, word: str) -> str | None:
    """What is wrong with `path`, `path:symbol` or a pattern such as `conf/<room>/*.yaml`."""
    name, _, symbol = word.partition(":")
    symbol = symbol.lstrip(":")
    if name.split("/")[0] in MADE_BY_RUNNING:
        return None
    pattern = re.sub(r"<[^>]*>|\{[^}]*\}|NAME|\.\.\.", "*", name).rstrip("/")
    bases = [ROOT, document.parent, ROOT / "ganinv"]
    found = [match for base in bases for match in base.glob(pattern)] if pattern else [ROOT]
    if not found and "/" not in name:
        found = [path for path in tracked() if path.name == name]
    if not found:
        return f"{name} does not exist"
    if symbol and not symbol.isdigit() and found[0].suffix == ".py":
        words = set(re.findall(r"\w+", found[0].read_text()))
        unknown = [part for part in symbol.strip("()").split(".") if part not in words]
        return f"{name} has no {unknown[0]}" if unknown else None
    return None


def module_fault(dotted: str) -> str | None:
    """What is wrong with a dotted name such as ganinv.loss.pixel.L2."""
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        try:
            importlib.import_module(dotted)
        except ImportError:
            return f"{dotted} does not exist"
    return None


# ------------------------------------------------------------------ commands


def commands(text: str) -> Iterator[tuple[int, str]]:
    """(line, command) of every command in fences, backticks, indented blocks and comments."""
    joined = re.sub(r"\\\n\s*(#\s*)?", " ", text)
    for number, line in enumerate(joined.splitlines(), 1):
        spans = re.findall(r"`([^`]+)`", line) or [line.strip().lstrip("#$> ")]
        for span in spans:
            for command in re.split(r"\s*(?:&&|;|\|)\s*", re.split(r"\s+#|\s{3,}", span)[0]):
                if re.match(r"([A-Z_]+=\S+ )*(python|torchrun|srun|ganinv|make|pytest) ", command):
                    yield number, command.rstrip(",:)")


def split(command: str) -> list[str]:
    """Words without the environment in front; placeholders made into plain words."""
    command = re.sub(r"\$\{?\w+\}?", "PLACEHOLDER", command)
    command = re.sub(r"<[^>]*>", "PLACEHOLDER", command).replace("=...", "=PLACEHOLDER")
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    return words


def overrides(words: list[str]) -> list[str]:
    """The overrides among a command's arguments; the first of each sweep."""
    kept, rest = [], iter(words)
    sweep = bool({"-m", "--multirun"} & set(words))
    for word in rest:
        if word in TAKES_VALUE:
            next(rest, None)
        elif not word.startswith("-") and word not in ("...", "…", "PLACEHOLDER"):
            bare = sweep and not re.search(r"=[\[{'\"]", word)
            group, _, choice = word.partition("=")
            if choice != "PLACEHOLDER" or not (CONF / group).is_dir():
                kept.append(word.split(",")[0] if bare else word)
    return kept


def ganinv_fault(words: list[str]) -> str | None:
    """What is wrong with a `ganinv COMMAND ...`."""
    if words[1].startswith("-") or words[1].isupper():
        return None
    choices = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    if words[1] not in choices:
        return f"no such command; there are {', '.join(sorted(choices))}"
    parser, rest = choices[words[1]], words[2:]
    if parser._subparsers is not None and rest and rest[0] != "PLACEHOLDER":  # ganinv fit KIND
        kinds = parser._subparsers._group_actions[0].choices
        if rest[0] not in kinds:
            return f"ganinv {words[1]} has no {rest[0]}; there are {', '.join(sorted(kinds))}"
        parser, rest = kinds[rest[0]], rest[1:]
    known = parser._option_string_actions
    unknown = [w for w in rest if re.match("--?[a-z]", w) and w.split("=")[0] not in known]
    return f"ganinv {words[1]} has no {unknown[0]}" if unknown else None


@cache
def command_fault(command: str) -> str | None:
    """What is wrong with a command; None where it would start."""
    try:
        words = split(command)
    except ValueError as error:
        return f"not a shell command: {error}"
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        unknown = [w for w in words[1:] if "=" not in w and w[0] != "-" and w not in targets]
        return f"Makefile has no target {unknown[0]}" if unknown else None
    if words[0] == "ganinv" and words[1] in ENTRIES:
        words = ["python", f"{words[1]}.py", *words[2:]]
    if words[0] == "ganinv":
        return ganinv_fault(words)
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    missing = [words[i] for i in scripts if not (ROOT / words[i]).is_file()]
    if missing and "PLACEHOLDER" not in missing[0]:
        return f"{missing[0]} does not exist"
    if not scripts or (entry := words[scripts[0]]) not in ("train.py", "evaluate.py"):
        return None
    try:
        composed(entry.removesuffix(".py"), overrides(words[scripts[0] + 1 :]))
    except Exception as error:
        return f"does not compose: {str(error).splitlines()[0]}"
    return None


def with_commands() -> Iterator[tuple[Path, str]]:
    """Documents, docstrings of modules, and the comments of conf/."""
    yield from ((path, path.read_text()) for path in MARKDOWN)
    scripts = [*sources(), *sorted((ROOT / "benchmarks").glob("*.py"))]
    yield from ((path, ast.get_docstring(ast.parse(path.read_text())) or "") for path in scripts)
    for path in sorted(CONF.rglob("*.yaml")):
        comments = [s if s.lstrip()[:1] == "#" else "" for s in path.read_text().splitlines()]
        yield path, "\n".join(comments)


# ------------------------------------------------------------------ tests


def test_every_path_exists() -> None:
    assert_none(
        f"{at(document, line)}: `{word}`: {fault}; correct it or write the file"
        for document in MARKDOWN
        for line, word in paths(document.read_text())
        if (fault := path_fault(document, word))
    )


def test_every_dotted_name_exists() -> None:
    assert_none(
        f"{at(document, number)}: {fault}"
        for document in MARKDOWN
        for number, line in enumerate(document.read_text().splitlines(), 1)
        for dotted in re.findall(r"`(ganinv(?:\.\w+)+)", line)
        if (fault := module_fault(dotted))
    )


def test_every_command_starts() -> None:
    assert_none(
        f"{at(path, line)}: `{command}`: {fault}"
        for path, text in with_commands()
        for line, command in commands(text)
        if (fault := command_fault(command))
    )


def test_every_pytest_marker_that_is_named_exists() -> None:
    known = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert_none(
        f"{at(path, number)}: pytest has no marker {word}; there are {', '.join(known)}"
        for path, text in with_commands()
        for number, line in enumerate(text.splitlines(), 1)
        for named in re.findall(r"(?:pytest |`)-m [\"']?(?:not )?(\w+)", line)
        if (word := named) not in known
    )


EQUATIONS = {  # file -> words that stand on the line of an equation, and its number in the paper
    "ganinv/method/psp.py": {"|x - x_hat|": 1, "LPIPS(x": 2, "|wp - w_avg|": 3, "<R(x)": 4},
    "docs/METHODS.md": {"`L_2`": 1, "`L_LPIPS`": 2, "`L_reg`": 3, "`L_ID`": 4, "weighted sum": 5},
    "ganinv/loss/pixel.py": {"pSp eq": 1},
    "ganinv/loss/lpips.py": {"pSp eq": 2},
    "ganinv/loss/latent.py": {"pSp's norm (eq": 3},
    "ganinv/loss/identity.py": {"pSp eq": 4},
}


@pytest.mark.parametrize("name", list(EQUATIONS))
def test_files_agree_on_the_equations_of_psp(name: str) -> None:
    """arXiv 2008.00951 numbers its five losses; `wp = w_avg + E(s)` has no number there."""
    lines = (ROOT / name).read_text().splitlines()
    for words, number in EQUATIONS[name].items():
        found = [line for line in lines if words in line and "eq. " in line]
        assert found and all(f"eq. {number}" in line for line in found), (words, found)


IDINVERT = {  # genforce/idinvert: train_encoder.py and training/loss_encoder.py
    "method.gan_loss": "logistic_r1",
    "method.adversarial_weight": 0.08,
    "method.gamma": 10.0,
    "method.decay_every": 1_750_000,
    "loss.vgg.weight": 5.0e-5,
    "optimizer.lr": 1.0e-4,
    "dataset.batch_size": 16,
    "encoder._target_": "ganinv.encoder.idinvert.DomainGuidedEncoder5x5",
    "encoder.channel_max": 512,
}


@pytest.mark.parametrize("name", ["ffhq256", "tower256", "bedroom256"])
def test_a_recipe_that_claims_a_source_composes_to_its_numbers(name: str) -> None:
    config = composed("train", [f"experiment=idinvert_{name}", "method.discriminator_weights=x"])
    for dotted, value in IDINVERT.items():
        found: object = config
        for key in dotted.split("."):
            found = found[key]  # type: ignore[index]
        assert found == value, dotted


def test_no_host_of_a_registry_and_no_path_of_a_machine() -> None:
    assert_none(
        f"{at(path, number)}: {found.group(0)}: leave hosts and machines to the environment"
        for path in tracked()
        if path.suffix not in WEIGHTS | {".npz", ".png", ".jpg", ".webp", ".gif"}
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (found := HOSTS.search(line) or MACHINE.search(line))
    )


def test_the_clone_stays_small() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    weights = sum(size for name, size in sizes.items() if Path(name).suffix in WEIGHTS)
    assert weights < 8e6, f"{weights / 1e6:.1f} MB of tracked weights; at most 8 MB: ship fp16"
    assert_none(
        f"{name}: {size / 1e6:.1f} MB; make it smaller, or give the reason in LARGE of this test"
        for name, size in sizes.items()
        if size > 1e6 and name not in LARGE
    )


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("python train.py", None),
        ("python train.py method=e4e seed=1 trainer.max_kimg=...", None),
        ("CUDA_VISIBLE_DEVICES=0 python train.py -m seed=0,1", None),
        ("python train.py methd=e4e", "does not compose"),
        ("python train.py trainer.kimg=1", "does not compose"),
        ("python benchmarks/gone.py", "does not exist"),
        ("ganinv train methd=e4e", "does not compose"),
        ("ganinv sharp SOURCE", "no such command"),
        ("ganinv shard SOURCE --sise 256", "has no --sise"),
        ("make gone", "no target"),
    ],
)
def test_a_wrong_command_is_seen(command: str, fault: str | None) -> None:
    assert [found for _, found in commands(f"    {command}   # why")] == [command]
    said = command_fault(command)
    assert said is None if fault is None else fault in (said or "")


@pytest.mark.parametrize("word", ["ganinv/loss/gone.py", "gone.md", "ganinv/loss/pixel.py:L3"])
def test_a_wrong_path_is_seen(word: str) -> None:
    (found,) = [name for _, name in paths(f"see `{word}`")]
    assert path_fault(ROOT / "README.md", found)


def test_hosts_and_machine_paths_are_seen() -> None:
    assert MACHINE.search("in " + "/".join(["", "home", "someone", "data"]))
    assert HOSTS.search("https://" + ".".join(["pypi", "org"]) + "/simple")
