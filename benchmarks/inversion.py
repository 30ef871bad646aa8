"""Per-image methods against plain loops over one image, seconds an image to the same final loss.

    python benchmarks/inversion.py CHECKPOINT [--images 4] [--share 0.05]

CHECKPOINT is an encoder's on the built-in domain. A plain loop takes the images one by one, with
the released constants, as the released code is written: the target's features at every step (but
the projector's, which NVIDIA computes once), gradients of all the weights that its code leaves on,
every step to the end. Its last loss of an image is what ganinv's method has to reach on that image
(to one part in a thousand: batches round otherwise); then the image leaves the batch. Rows add one
thing at a time, so that each says what it is worth:

    together    all images in one batch, features once, no gradients of weights, released constants
    + stop      an image leaves once it has the plain loop's loss
    + start     image2stylegan: from the encoder's code in place of w_avg
    + schedule  projector: from the encoder's code, and the whole schedule, a function of
                t = step / steps, in fewer steps
    + rate      a larger step; of the projector with a schedule of its own length

The projector adds noise to w at every step and ends where its ramps end, so that no image is left
out early, and with other noise every second image would miss its own last loss: its rows count by
the mean over images. How few steps its schedule may have is not looked for on the faces that are
measured, which would choose with hindsight, but on as many others: the smallest of `PARTS` with
which those still end, on average, at or below the loss that the released schedule from w_avg ends
at. The time of that search, which a user has behind him once, is in no row.

Where the factors are from: `together` is arithmetic (batches fill the cores; less work a step);
`+ stop` and `+ start` are steps that need not be taken; `+ schedule` and `+ rate` leave the
released constants. `--share` shortens every method alike: 1 is the released number of steps. The
projector wants all of them: below some 300 its noise maps, 1e5 R, have no time to become noise, and
no shorter schedule ends at the loss of a schedule that is too short itself. An image that never
gets to its own loss is counted in `missed`, and its row's times are of all its steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganinv.config.inversions import build_inversions
from ganinv.core.image import to_unit
from ganinv.core.interface import Target
from ganinv.core.latent import repeat_w
from ganinv.core.safe.io import write_atomic
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.dataset import avatars
from ganinv.evaluation.open import open_model
from ganinv.inversion import noise
from ganinv.inversion.model import Model
from ganinv.inversion.optimise import Optimise, take_rows
from ganinv.loss.term import Term

FIRST_SEED = 40_000_000  # beyond every split
RATES = {"image2stylegan": 0.05, "projector": 0.2, "domain_regularised": 0.03, "pti": 1.0e-3}
FROM_E = ("image2stylegan", "projector")  # their released start is w_avg
BY_SCHEDULE = ("projector",)  # end where their ramps end
PARTS = (1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 8)  # of the released schedule's steps
TOLERANCE = 1.001
Loss = Callable[[int], Tensor]


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--methods", nargs="+", default=list(PLAIN), choices=list(PLAIN))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/inversion.json"))
    args = parser.parse_args()
    model = open_model(args.checkpoint).model
    target = faces(model, args.images)
    others = faces(model, args.images, first=FIRST_SEED + args.images)
    rows = [r for name in args.methods for r in measure(name, model, target, others, args.share)]
    result = {"images": args.images, "share": args.share, "threads": torch.get_num_threads()}
    write_atomic(args.json, json.dumps(result | {"rows": rows}, indent=1).encode())


def faces(model: Model, count: int, first: int = FIRST_SEED) -> Target:
    """Drawn faces of no split, of the seeds from `first` on."""
    side = model.input_size[0]
    drawn = [torch.tensor(avatars.draw(first + i, side)[0]) for i in range(count)]
    x, key = to_unit(torch.stack(drawn).permute(0, 3, 1, 2)), [str(i) for i in range(count)]
    return Target(x=x, s=x, key=key, seeds=[derive_seed("benchmark", k) for k in key])


def measure(
    name: str, model: Model, target: Target, others: Target, share: float
) -> list[dict[str, Any]]:
    """The rows of one method, the plain loop's first.

    Args:
        name: of the method.
        model: E and G.
        target: the faces that are measured.
        others: those on which the schedule's length is looked for.
        share: of the released steps.
    """
    node = nodes()[name]
    steps = max(2, round(node["steps"] * share))
    began = time.perf_counter()
    last = [PLAIN[name](model, take_rows(target, torch.tensor([i])), node | {"steps": steps})
            for i in range(len(target.key))]  # fmt: skip
    seconds = (time.perf_counter() - began) / len(last)
    rows = [_row(name, "plain loop", seconds, seconds, steps, sum(last) / len(last), 0)]
    limits = torch.tensor(last) * TOLERANCE
    start = {"start": "encode"} if name in FROM_E else {}
    rate = start | {"lr": RATES[name]}
    trials: list[tuple[str, dict[str, Any], Tensor | None]] = [("together", {}, None)]
    if name in BY_SCHEDULE:
        shortest = shortest_schedules(name, model, others, node | {"steps": steps}, [start, rate])
        trials += [("+ schedule", start | {"steps": shortest[0]}, None)]
        trials += [("+ rate", rate | {"steps": shortest[1]}, None)]
    else:
        trials += [("+ stop", {}, limits)]
        trials += [("+ start", start, limits)] if start else []
        trials += [("+ rate", rate, limits)]
    for what, changes, stop in trials:
        method = built(name, model, node | {"steps": steps} | changes, stop)
        began = time.perf_counter()
        method(target)
        now = (time.perf_counter() - began) / len(last)
        ends = _ends(method)
        missed = int((ends > limits).sum())
        assert method.trace is not None
        taken = sum(method.trace.steps) / len(last)
        rows.append(_row(name, what, now, seconds, taken, float(ends.mean()), missed))
    return rows


def shortest_schedules(
    name: str, model: Model, others: Target, node: dict[str, Any], trials: list[dict[str, Any]]
) -> list[int]:
    """For each of some changes of the node, the fewest steps with which the other faces still end
    at or below what they end at without them, on average; all steps where no fewer do."""
    limit = _end_of(name, model, others, node) * TOLERANCE
    found = []
    for changes in trials:
        shortest: int = node["steps"]
        for part in PARTS:
            steps = max(2, round(node["steps"] * part))
            if _end_of(name, model, others, node | changes | {"steps": steps}) > limit:
                break
            shortest = steps
        found.append(shortest)
    return found


def _end_of(name: str, model: Model, others: Target, node: dict[str, Any]) -> float:
    method = built(name, model, node, None)
    method(others)
    return float(_ends(method).mean())


def _row(
    name: str, what: str, seconds: float, plain: float, steps: float, loss: float, missed: int
) -> dict[str, Any]:
    row = {"method": name, "what": what, "seconds_per_image": round(seconds, 2),
           "times": round(plain / seconds, 2), "steps": steps, "loss": round(loss, 4),
           "missed": int(missed)}  # fmt: skip
    print(row, flush=True)
    return row


def _ends(method: Optimise) -> Tensor:
    """The last loss of each image, [B]."""
    assert method.trace is not None
    columns = method.trace.values["total"].t()
    return torch.stack([column[column.isfinite()][-1] for column in columns])


# ------------------------------------------------------------------ ganinv's methods


def nodes() -> dict[str, dict[str, Any]]:
    """conf/inversion of all methods, composed."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    folder = Path(__file__).resolve().parents[1] / "conf"
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = compose("evaluate", overrides=[f"inversion=[{','.join(PLAIN)}]", "checkpoint=given"])
    found: Any = OmegaConf.to_container(cfg.inversion, resolve=True)
    found["pti"]["threshold"] = None  # all steps, or the plain loop's loss
    return found


def built(name: str, model: Model, node: dict[str, Any], limits: Tensor | None) -> Optimise:
    """The method, which stops an image at its limit, where there are any."""
    from omegaconf import OmegaConf

    method: Optimise = build_inversions(OmegaConf.create({name: node}), model)[name]
    if limits is not None:
        kind = type(method)
        method.__class__ = type(f"Stopping{kind.__name__}", (_Stopping, kind), {})
        method.limits = limits  # type: ignore[attr-defined]
    return method


class _Stopping(Optimise):
    """Stops each image at a loss of its own; the key is its number."""

    limits: Tensor

    def losses(self, target: Target, *step: Any) -> dict[str, Tensor]:
        """The method's, and each image's limit, watched alone."""
        values = super().losses(target, *step)  # type: ignore[safe-super]
        return values | {"limit": self.limits[[int(key) for key in target.key]]}

    def converged(self, values: Any) -> Tensor:
        """At most the limit."""
        return values["total"] <= values["limit"]


# ------------------------------------------------------------------ plain loops


def _descend(leaves: list[Tensor], loss_at: Loss, steps: int, lr: Callable[[int], float],
             after: Callable[[], None] = lambda: None) -> float:  # fmt: skip
    """Adam for one image, every step to the end; the last loss, before its step."""
    adam, value = torch.optim.Adam(leaves, lr=lr(0)), torch.zeros(())
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr(step)
        value = loss_at(step)
        adam.zero_grad()
        value.backward()
        adam.step()
        with torch.no_grad():
            after()
    return float(value.detach())


def _perceptual(node: dict[str, Any]) -> Term:
    from hydra.utils import instantiate

    term: Term = instantiate(node["perceptual"])
    return term


def plain_image2stylegan(model: Model, one: Target, node: dict[str, Any]) -> float:
    """One image's code in W+, from w_avg."""
    G, d = copy.deepcopy(model.G).requires_grad_(True), _perceptual(node)
    wp = repeat_w(G.w_avg[None], G.num_ws).clone().requires_grad_()

    def loss(step: int) -> Tensor:
        image = G.synthesis(wp)
        return ((image - one.x).square().mean() + d(image, one.x)).sum()

    return _descend([wp], loss, node["steps"], lambda step: node["lr"])


def plain_domain_regularised(model: Model, one: Target, node: dict[str, Any]) -> float:
    """From E's code, near to where E leads."""
    frozen, d = copy.deepcopy(model).requires_grad_(True), _perceptual(node)
    wp = model.encode(one.x).detach().clone().requires_grad_()

    def loss(step: int) -> Tensor:
        image = frozen.G.synthesis(wp)
        near = (wp - frozen.encode(image)).square().mean()
        value = (image - one.x).square().mean() + node["perceptual_weight"] * d(image, one.x)
        return (value + node["domain_weight"] * near).sum()

    return _descend([wp], loss, node["steps"], lambda step: node["lr"])


def plain_projector(model: Model, one: Target, node: dict[str, Any]) -> float:
    """w and noise maps; NVIDIA freezes G and computes the target's features once."""
    ours = built("projector", model, node, None)
    G, known = model.G, ours.likeness.remember(one)  # type: ignore[attr-defined]
    w = ours.w_avg[None].clone().requires_grad_()  # type: ignore[attr-defined]
    maps = {n: m.requires_grad_() for n, m in noise.white(G, one).items()}

    def loss(step: int) -> Tensor:
        seeds = [derive_seed(one.seeds[0], "noise on w", step)]
        moved = w + ours.noise_on_w(step) * randn_rows(seeds, w.shape[1:], "cpu")  # type: ignore[attr-defined]
        image = G.synthesis(repeat_w(moved, G.num_ws), noise=maps)
        d = ours.likeness(one, known, image)["perceptual"]  # type: ignore[attr-defined]
        return (d + node["noise_reg"] * noise.regulariser(maps)).sum()

    leaves = [w, *maps.values()]
    return _descend(leaves, loss, node["steps"], ours.rate, lambda: noise.normalise(maps))


def plain_pti(model: Model, one: Target, node: dict[str, Any]) -> float:
    """A copy of G, tuned at E's code."""
    G, d = copy.deepcopy(model.G).requires_grad_(True), _perceptual(node)
    wp = model.encode(one.x).detach()

    def loss(step: int) -> Tensor:
        image = G.synthesis(wp)
        return ((image - one.x).square().mean() + d(image, one.x)).sum()

    weights = list(G.synthesis.parameters())
    return _descend(weights, loss, node["steps"], lambda step: node["lr"])


PLAIN = {
    "image2stylegan": plain_image2stylegan,
    "projector": plain_projector,
    "domain_regularised": plain_domain_regularised,
    "pti": plain_pti,
}


if __name__ == "__main__":
    main()
