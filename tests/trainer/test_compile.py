"""`trainer.compile`: a run with it is the run without, in one graph a part, compiled once.

What inductor makes of the graphs is tested by `pytest -m nightly`; here they run as they were
traced, which shows graph breaks, recompilations and wrong results alike.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganinv.config.build import build_method
from ganinv.config.instantiate import instantiate
from ganinv.core.errors import ConfigError
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan3 import StyleGAN3Generator
from ganinv.loss.feature import Feature
from ganinv.loss.identity import Identity
from ganinv.loss.perceptual import Perceptual
from ganinv.loss.pixel import L2
from ganinv.loss.pyramid import LaplacianPyramid
from ganinv.loss.region import Region
from ganinv.loss.similarity import Similarity
from ganinv.optimizer.ranger import Ranger
from ganinv.run.checkpoint import read_checkpoint
from ganinv.trainer import compile as compiling
from ganinv.trainer.compile import Compile, parts_of, wants_compiler
from ganinv.trainer.dry import random_lpips
from tests import runs
from tests.generator.test_stylegan3 import TINY as THIRD
from tests.interop.test_plain import FIRST
from tests.method.curves import batches
from tests.optimizer.test_ranger import SETTINGS
from tests.processes import launch_ready
from tests.runs import composed, differences, overrides, plain_overrides

SMALL = ["encoder=idinvert", "encoder.channel_base=4", "encoder.channel_max=16"]  # to trace Ranger


@pytest.fixture(autouse=True)
def once() -> Iterator[None]:
    """A second compilation of anything is an error."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs as torch traced them: nothing is generated."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")


def compiled_part(function: Any, name: str = "a part", required: bool = True) -> Any:
    """As a run compiles it."""
    return Compile(required=required)._compiled(name, function)


# ------------------------------------------------------------------ a step


class Alone:
    """What a method asks of its trainer, in a process of its own."""

    world_size, global_rank, is_global_zero = 1, 0, False
    strategy = SimpleNamespace(root_device=torch.device("cpu"))


def step_of(
    file: Any, more: list[str], *, compiled: bool
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """What the second step measures, and the gradients of E in both."""
    built: Any = build("psp", file, *SMALL, *more)
    alone: Any = Alone()
    alone.optimizers = built.configure_optimizers()
    built.optimizers = lambda *_, **__: alone.optimizers
    built.manual_backward = lambda loss: loss.backward()
    built.trainer = alone
    gradients: list[Tensor] = []
    move = built.move

    def noted(player: str) -> None:
        if player == "E":
            gradients.extend(p.grad.clone() for p in built.E.parameters() if p.grad is not None)
        move(player)

    built.move = noted
    callback = Compile(required=True)
    if compiled:
        callback.on_train_start(alone, built)
    for batch in batches(False, 2):
        built.training_step(batch, 0)
    callback.teardown(alone, built, "fit")
    return built.values, gradients


def build(method: str, file: Any, *more: str) -> Any:
    cfg = composed([*overrides(method, file, Path("unused")), *more])
    torch.manual_seed(0)
    return build_method(cfg, instantiate(cfg.generator)).train()


@pytest.mark.parametrize(
    "more", [["loss.perceptual=null"], pytest.param([], marks=pytest.mark.nightly)], ids=str
)
def test_two_steps_agree_with_eager_ones(
    more: list[str], assets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and all gradients, backward graphs traced, noise of other seeds in the second step:
    nothing is baked in, and nothing compiled twice."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    plain, ours = (step_of(assets[0], more, compiled=c) for c in (False, True))
    assert len(plain[1]) == len(ours[1]) > 20
    for name, value in plain[0].items():
        torch.testing.assert_close(ours[0][name], value, rtol=1e-5, atol=1e-6, msg=name)
    largest = max(float(g.abs().max()) for g in plain[1])
    for mine, other in zip(ours[1], plain[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * largest)


class Stages(nn.Module):
    """A backbone of two layers, of unit embeddings too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2)

    def stages(self, image: Tensor) -> list[Tensor]:
        y = self.first(image).relu()
        return [y, self.second(y)]

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.normalize(self.stages(image)[1].mean((2, 3)))


TERMS = {
    "l2": lambda: L2(weight=1),
    "perceptual": lambda: Perceptual(weight=1, backbone=Stages()),
    "feature": lambda: Feature(weight=1, backbone=Stages()),
    "similarity": lambda: Similarity(weight=1, backbone=Stages()),
    "identity": lambda: Identity(weight=1, region=(2, 30, 2, 30), backbone=Stages()),
    "region": lambda: Region(weight=1, region=(2, 30, 2, 30), term=L2(weight=1)),
    "laplacian": lambda: LaplacianPyramid(weight=1, levels=None, growth=2.0),
    "lpips": lambda: random_lpips(weight=1, net="alex"),
}


@pytest.mark.parametrize(
    "name", [n if n != "lpips" else pytest.param(n, marks=pytest.mark.nightly) for n in TERMS]
)
def test_every_image_term_is_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    term = TERMS[name]()
    x_hat, x = torch.rand(2, 2, 3, 32, 32)
    found = []
    for forward in (term.forward, compiled_part(term.forward)):
        leaf = x_hat.clone().requires_grad_(True)
        value = forward(x_hat=leaf, x=x)
        value.sum().backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)


def test_what_is_compiled(assets: Any) -> None:
    built = build("psp", assets[0])
    names = [name for name, *_ in parts_of(built, built.configure_optimizers())]
    assert names == ["G's synthesis", "loss.l2", "loss.perceptual", "the optimizer of E"]
    gan = build("gan", assets[0])
    names = [name for name, *_ in parts_of(gan, gan.configure_optimizers())]
    assert names == ["G's synthesis"]  # Adam is a fused kernel
    alone: Any = Alone()
    alone.optimizers = built.configure_optimizers()
    built.G = nn.Identity()
    built.G.synthesis = nn.Identity()
    with pytest.raises(ConfigError, match=r"=true with G's synthesis, .* \(Identity has no synthe"):
        Compile(required=True).on_train_start(alone, built)


# ------------------------------------------------------------------ a run


def run(words: list[str], folder: Path) -> dict[str, Any]:
    """Its last checkpoint."""
    runs.run([*words, f"run_dir={folder}"])
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


@pytest.mark.nightly
def test_a_killed_run_goes_on_the_same_and_its_files_are_those_of_any(
    assets: Any, tmp_path: Path, traced: None
) -> None:
    """Six steps with a validation after the fourth, and the last two from what was then saved."""
    words = [*plain_overrides("psp", *assets), *SMALL]
    plain = run(words, tmp_path / "plain")
    words.append("trainer.compile=true")
    whole = run(words, tmp_path / "whole")
    saved = tmp_path / "whole" / "checkpoints" / "previous.ckpt"
    assert read_checkpoint(saved)["images_seen"] == 16
    resumed = run([*words, f"resume={saved}"], tmp_path / "resumed")
    assert whole["images_seen"] == resumed["images_seen"] == 24
    for part in ("state_dict", "optimizer_states"):
        assert not differences(whole[part], resumed[part]), part
    assert list(plain["state_dict"]) == list(whole["state_dict"])
    assert set(plain) == set(whole)
    for name, value in plain["state_dict"].items():
        torch.testing.assert_close(whole["state_dict"][name], value, rtol=1e-4, atol=1e-5)
    mine, other = (p["optimizer_states"][0]["state"] for p in (whole, plain))
    assert {k: list(v) for k, v in mine.items()} == {k: list(v) for k, v in other.items()}


# ------------------------------------------------------------------ refusals


class Chatty(L2):
    """A term that asks for a number in the middle."""

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return super().forward(x_hat, x) * (2.0 if float(x_hat.mean()) > 0 else 1.0)


def test_a_graph_break_is_refused_by_name(traced: None) -> None:
    x = torch.ones(2, 3, 4, 4)
    call = compiled_part(Chatty(weight=1).forward, "loss.chatty")
    words = (
        r"trainer.compile=true with loss.chatty, which torch.compile does not take as one graph "
        r"\(\w+: .*\); expected a graph without breaks, .*To fix: set trainer.compile=false"
    )
    with pytest.raises(ConfigError, match=words):
        call(x_hat=x, x=x)


def test_auto_warns_by_name_and_goes_on(traced: None, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.ones(2, 3, 4, 4)
    call = compiled_part(Chatty(weight=1).forward, "loss.chatty", required=False)
    for _ in range(2):
        assert torch.equal(call(x_hat=x, x=0 * x), torch.full((2,), 2.0))
    (told,) = [m for m in caplog.messages if "compiled" in m]  # once
    assert told.startswith("not compiled (trainer.compile=auto): loss.chatty (")


def test_a_second_compilation_fails_these_tests(traced: None) -> None:
    call = compiled_part(L2(weight=1).forward, "loss.l2")
    call(x_hat=torch.ones(2, 3, 4, 4), x=torch.zeros(2, 3, 4, 4))
    with pytest.raises(ConfigError, match=r"with loss.l2, .*RecompileError"):
        call(x_hat=torch.ones(1, 3, 4, 4), x=torch.zeros(1, 3, 4, 4))


def test_a_fault_of_the_part_itself_is_told_in_its_own_words(traced: None) -> None:
    def wrong(x: Tensor) -> Tensor:
        if x.shape[0] == 2:
            raise ConfigError("a region that leaves the image")
        return x

    with pytest.raises(ConfigError, match=r"^a region that leaves the image$"):
        compiled_part(wrong)(torch.ones(2))


def test_validations_are_not_compiled() -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("compiled")

    callback: Any = Compile(required=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda *_, **__: never)
        call = callback._compiled("a part", lambda x: x + 1)
    callback.on_validation_start(None, None)
    assert call(1) == 2
    callback.on_validation_end(None, None)
    with pytest.raises(AssertionError, match="compiled"):
        call(1)


def test_who_compiles(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """auto: GPUs; true: whoever can; what cannot is refused, or, with auto, told."""
    monkeypatch.setattr(compiling, "missing_for", lambda device: None)
    assert [wants_compiler("auto", d) for d in ("cpu", "cuda")] == [False, True]
    assert wants_compiler(True, "cpu") and not wants_compiler(False, "cuda")
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    words = r"=true on cpu without a C\+\+ compiler \(g\+\+\); expected what torch.compile needs"
    with pytest.raises(ConfigError, match=words):
        wants_compiler(True, "cpu")
    monkeypatch.setattr(compiling, "missing_for", lambda device: "triton")
    assert not wants_compiler("auto", "cuda")
    assert "not compiled (trainer.compile=auto): triton is missing" in caplog.text


def test_a_dry_run_is_not_compiled() -> None:
    with pytest.raises(ConfigError, match=r"trainer.compile=True with trainer=dry; expected false"):
        runs.run(["trainer=dry", "trainer.compile=true"])


# ------------------------------------------------------------------ the optimizer


def test_heads_that_open_late_share_one_compilation(traced: None) -> None:
    """As e4e's do, each of an age of its own; and rates that change bake nothing in."""
    params = [nn.Parameter(torch.randn(4, 3)) for _ in range(4)] + [nn.Parameter(torch.ones(5))]
    optimizer = Ranger(params, **SETTINGS)
    optimizer.update = compiled_part(compiling.plain_update)
    with torch._dynamo.config.patch(error_on_recompile=False):
        torch._dynamo.utils.counters.clear()
        for step in range(8):
            optimizer.param_groups[0]["lr"] *= 0.9
            opened = params[: 1 + step // 2] + params[4:]
            for p in opened:
                p.grad = torch.randn_like(p)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    # the first group [head, bias], and one head alone
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


# ------------------------------------------------------------------ all of it, generated


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["stylegan", "stylegan3"])
def test_the_other_generators_are_one_graph(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    G = StyleGANGenerator(**FIRST) if kind == "stylegan" else StyleGAN3Generator(**THIRD)  # type: ignore[arg-type]
    G.eval().requires_grad_(False)
    wp = torch.randn(2, G.num_ws, G.w_dim)
    before = [G.synthesis(wp, noise="random", seeds=[s, s + 1]) for s in (0, 5)]
    G.synthesis.run_layers = compiled_part(G.synthesis.run_layers)  # type: ignore[method-assign]
    for s, image in zip((0, 5), before, strict=True):
        found = G.synthesis(wp.requires_grad_(True), noise="random", seeds=[s, s + 1])
        torch.testing.assert_close(found, image, rtol=1e-5, atol=1e-5)
        found.sum().backward()


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_run_that_inductor_compiles(assets: Any, tmp_path: Path) -> None:
    """Losses agree with eager ones, and a second run compiles nothing anew. Compared are two steps:
    a rate that is larger by 1e-5 of itself moves the losses of the later ones by a tenth."""
    from torch._dynamo.utils import counters

    words = [*plain_overrides("psp", *assets), *SMALL]
    run(words, tmp_path / "plain")
    words = [*words, "trainer.compile=true"]
    first = run(words, tmp_path / "first")
    counters.clear()
    again = run(words, tmp_path / "again")
    assert counters["inductor"]["fxgraph_cache_hit"] > 0
    assert not counters["inductor"]["fxgraph_cache_miss"]
    assert not differences(first["state_dict"], again["state_dict"])
    rows = [list(csv.DictReader((tmp_path / n / "metrics.csv").open())) for n in ("plain", "first")]
    totals = [[float(r["train/total"]) for r in row if r["train/total"]] for row in rows]
    assert len(totals[0]) == 6
    assert totals[1][:2] == pytest.approx(totals[0][:2], rel=1e-4)


@pytest.mark.nightly
@pytest.mark.ddp
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("method", ["psp", "e4e", "restyle_psp", "idinvert", "bdinvert", "gan"])
def test_two_ranks_that_compile(method: str, assets: Any, tmp_path: Path) -> None:
    """In bfloat16, as GPUs do; the ranks stay equal."""
    words = [*plain_overrides(method, *assets), "trainer.compile=true", "dataset.batch_size=2"]
    words += ["trainer.precision=bf16-mixed", "trainer.compare_ranks_every=1"]
    launch_ready(words, tmp_path / "run", ranks=2)
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert saved["images_seen"] == 24 and not any("_orig_mod" in k for k in saved["state_dict"])
