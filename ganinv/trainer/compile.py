"""The parts of a step that are the same at every step, under torch's compiler (`trainer.compile`).

    part              what is compiled, as one graph of fixed shapes
    G's synthesis     `run_layers`, forward and backward; its noise is drawn before
    loss.NAME         `forward` of each term on images: LPIPS, perceptual, identity, l2, ...
    optimizer of E    Ranger's update; one that is a fused kernel already (Adam) stays

E and D are not compiled: what a stage has opened and second derivatives change their graphs. Nor
are validations, whose last batch has another size. Compiled are functions, never modules: names of
weights, checkpoints and exports are what they would be without.

A backward pass is compiled outside autocast, as it runs here (`method/players.py`), and together
with its forward pass. What cannot be compiled is refused by name; where nobody asked for it
("auto"), a warning names it, and it runs as it would without.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from ganinv.core.errors import ConfigError, explain
from ganinv.loss.term import Term, Terms
from ganinv.method.base import Method
from ganinv.optimizer.ranger import Ranger, plain_update
from ganinv.run.storage.fetch import cache_folder

log = logging.getLogger(__name__)

BACKEND = "inductor"
FOLDER = "TORCHINDUCTOR_CACHE_DIR"  # a user's own counts
BACKWARD = {  # how torch's compiler treats backward passes
    "backward_pass_autocast": "off",
    "force_non_lazy_backward_lowering": True,  # with the forward pass, where a failure has a name
}
GRAPHS = 64  # of one function at most: Ranger's update has one for every 64 tensors
ON_IMAGES = {"x_hat", "x"}

Function = Callable[..., Any]
Part = tuple[str, Any, str, Function]  # its name, the object, its attribute, what is compiled


def wants_compiler(setting: bool | Literal["auto"], device: str) -> bool:
    """Whether a run on "cuda" or "cpu" compiles; on its own ("auto") it does on GPUs.

    Raises:
        ConfigError: it was told to, and cannot.
    """
    if setting is False or (setting == "auto" and device != "cuda"):
        return False
    missing = missing_for(device)
    if missing is None:
        return True
    if setting == "auto":
        log.warning("not compiled (trainer.compile=auto): %s is missing", missing)
        return False
    raise ConfigError(
        explain(f"trainer.compile=true on {device} without {missing}", "what torch.compile needs",
                "install it, or set trainer.compile=false")
    )  # fmt: skip


def missing_for(device: str) -> str | None:
    """What torch's compiler lacks for a device, None if nothing."""
    from torch._functorch import config  # slow to import, and wanted by few runs

    if not all(hasattr(config, name) for name in BACKWARD):
        return "a torch that compiles backward passes outside autocast (constraints.txt has one)"
    if device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "triton and a GPU that it supports"
    compilers = os.environ.get("CXX", ""), "c++", "g++", "clang++"
    return None if any(map(shutil.which, filter(None, compilers))) else "a C++ compiler (g++)"


def parts_of(method: Method, optimizers: Sequence[Any]) -> Iterator[Part]:
    """What of a method and its optimizers is compiled."""
    generator = getattr(method, "G", None)
    if generator is not None and hasattr(generator.synthesis, "run_layers"):
        yield "G's synthesis", generator.synthesis, "run_layers", generator.synthesis.run_layers
    terms = getattr(method, "terms", None)
    for name, term in terms.terms().items() if isinstance(terms, Terms) else ():
        if isinstance(term, Term) and set(term.reads) <= ON_IMAGES:
            yield f"loss.{name}", term, "forward", term.forward
    for player, optimizer in zip(method.player_names, optimizers, strict=True):
        if isinstance(optimizer, Ranger):
            yield f"the optimizer of {player}", optimizer, "update", plain_update


class Compile(pl.Callback):
    """Compiles the parts above for the training steps of a run.

    Args:
        required: whether to refuse what cannot be compiled (trainer.compile=true), or to warn.
    """

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self.validating = False
        self._replaced: list[tuple[Any, str]] = []
        self._before: tuple[str | None, int, dict[str, Any]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the checkpoint was read. The first step then compiles, or finds in the cache what
        an earlier run compiled.

        Raises:
            ConfigError: a generator of the user's own, which is not made for it.
        """
        from torch._dynamo import config as tracing
        from torch._functorch import config

        assert isinstance(pl_module, Method)
        parts = list(parts_of(pl_module, trainer.optimizers))
        if hasattr(pl_module, "G") and not any(name == "run_layers" for _, _, name, _ in parts):
            self._cannot(
                "G's synthesis", f"{type(pl_module.G).__name__} has no synthesis.run_layers"
            )
        backward = {name: getattr(config, name) for name in BACKWARD}
        self._before = os.environ.get(FOLDER), tracing.recompile_limit, backward
        os.environ.setdefault(FOLDER, str(cache_folder("compiled")))
        self._configure(GRAPHS, BACKWARD)
        for name, owner, attribute, function in parts:
            setattr(owner, attribute, self._compiled(name, function))
            self._replaced.append((owner, attribute))
        if trainer.is_global_zero:
            log.info("compiling %s; kept in %s", ", ".join(p[0] for p in parts), os.environ[FOLDER])

    def _compiled(self, name: str, function: Function) -> Function:
        """The function as one graph; where torch cannot, see the class."""
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        graph = torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND)
        given_up = False

        def call(*given: Any, **named: Any) -> Any:
            nonlocal given_up
            if self.validating or given_up:
                return function(*given, **named)
            try:
                return graph(*given, **named)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                found = function(*given, **named)  # a fault of its own is told in its own words
                said = str(error).strip().splitlines()[0]
                self._cannot(name, f"{type(error).__name__}: {said}", error)
                given_up = True
                return found

        return call

    def _cannot(self, name: str, why: str, error: Exception | None = None) -> None:
        """Refuse a part, or warn.

        Raises:
            ConfigError: naming it.
        """
        if not self.required:
            log.warning("not compiled (trainer.compile=auto): %s (%s)", name, why)
            return
        raise ConfigError(
            explain(f"trainer.compile=true with {name}, which torch.compile does not take as one "
                    f"graph ({why})", "a graph without breaks, of the same shapes at every step",
                    "set trainer.compile=false")
        ) from error  # fmt: skip

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validations are not compiled."""
        self.validating = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Steps are."""
        self.validating = False

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave everything as it was, for the next run of this process."""
        self._put_back()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Likewise."""
        self._put_back()

    def _put_back(self) -> None:
        for owner, attribute in self._replaced:
            delattr(owner, attribute)
        self._replaced = []
        if self._before is not None:
            folder, graphs, backward = self._before
            self._before = None
            self._configure(graphs, backward)
            if folder is None:
                os.environ.pop(FOLDER, None)
            torch.compiler.reset()  # the limit of recompilations counts a process's, not a run's

    @staticmethod
    def _configure(graphs: int, backward: dict[str, Any]) -> None:
        from torch._dynamo import config as tracing
        from torch._functorch import config

        tracing.recompile_limit = graphs
        for name, value in backward.items():
            setattr(config, name, value)


def compile_callbacks(setting: bool | Literal["auto"], device: str) -> list[pl.Callback]:
    """The callback of a run that compiles, or none; see `wants_compiler`."""
    return [Compile(required=setting is True)] if wants_compiler(setting, device) else []
