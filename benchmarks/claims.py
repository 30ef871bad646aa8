"""The papers' claims, tried on the built-in domain; writes docs/CLAIMS.md and docs/claims/*.svg.

    python benchmarks/claims.py [--out runs/claims] [--only WORD ...]

Trains and evaluates what it needs (`claims_runs.py`), once: a run that was stopped goes on, and the
page is written from what is there. A claim is a difference between two rows over the same images;
its interval holds the difference of 95 % of 1000 resampled sets of images (metric/bootstrap.py):

    holds            the interval lies on the side that the paper says
    does not hold    it lies on the other side
    not decidable    it holds 0: more images, or more seeds, would be needed

Intervals are over images. Each network is trained once, with seed 0, so that what another seed
would give is in none of them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from claims_measures import (
    SAMPLES,
    apart,
    between,
    compared,
    distance_to_samples,
    distance_to_w,
    fid_of_midpoints,
    found_by,
    midpoint_features,
    pairs,
    per_face,
    samples_moved,
    unreal,
)
from claims_page import Claim, Measured, figure, page
from claims_runs import ENCODERS_ON, EVALUATIONS, FREE, OPTIMISED_ON, ROOT, Runs
from inversion import faces
from torch import Tensor

from ganinv.backbone.efficientnet_lite0 import efficientnet_lite0
from ganinv.core.safe.io import write_atomic
from ganinv.evaluation.open import open_model

FACES = 30_000_000  # seeds of faces of no split
TUNED_FACES = 4  # for which the generator is tuned, each by itself


# ------------------------------------------------------------------ the claims


@torch.no_grad()
def codes(runs: Runs, name: str) -> Tensor:
    """wp [N,L,D] of drawn faces by a training's encoder."""
    model = open_model(runs.checkpoint(name)).model
    return torch.cat([model.encode(s) for s in faces(model, ENCODERS_ON, FACES).s.split(32)])


def psp_over_e4e(runs: Runs) -> list[Measured]:
    """Reconstruction."""
    a, b = (runs.rows("psp"), "encode"), (runs.rows("e4e"), "encode")
    return [between("MSE: pSp, e4e", "mse", a, b), between("Lite0: pSp, e4e", "lite0", a, b)]


def edits_change_less(
    words: str, preferred: tuple[str, str], other: tuple[str, str]
) -> Callable[[Runs], list[Measured]]:
    """What else glasses change where they are there by the same amount (metric=change)."""

    def measure(runs: Runs) -> list[Measured]:
        rows = [{**runs.result(name)[row], "images": float(count)} for (name, row), count in
                ((w, EVALUATIONS[w[0]].limit) for w in (preferred, other))]  # fmt: skip
        what = f"other attributes changed by glasses, in standard deviations: {words}"
        return [apart(what, rows[0], rows[1], "change_others")]

    return measure


def restyle_over_psp(runs: Runs) -> list[Measured]:
    """At the same number of images."""
    a, b = (runs.rows("restyle_psp"), "encode"), (runs.rows("psp"), "encode")
    return [
        between("MSE: ReStyle, pSp", "mse", a, b),
        between("Lite0: ReStyle, pSp", "lite0", a, b),
    ]


def free_has_the_best_mse(runs: Runs) -> list[Measured]:
    """Against the domain-regularised optimisation."""
    free = (runs.rows("free"), "image2stylegan")
    return [between("MSE: free W+, domain-regularised", "mse", free,
                    (runs.rows("domain_2"), "domain_regularised"))]  # fmt: skip


def free_knows_less(runs: Runs) -> list[Measured]:
    """What its codes say of glasses, and what lies between two of them."""
    model = open_model(runs.checkpoint("idinvert")).model
    target = faces(model, OPTIMISED_ON, FACES)
    network = efficientnet_lite0(weights=None)
    with torch.no_grad():
        others = faces(model, ENCODERS_ON, FACES + OPTIMISED_ON).x
        real = torch.cat([network.features(part) for part in others.split(32)]).double()
    ours = found_by("domain_regularised", model, target, []).wp
    free = found_by("image2stylegan", model, target, FREE).wp
    (i, j), n = pairs(OPTIMISED_ON), OPTIMISED_ON
    between_two = [
        per_face(torch.tensor(unreal((wp[i] + wp[j]) / 2)), n) for wp in (ours, free)
    ]  # fmt: skip
    return [
        apart("minus the average precision of glasses: domain-regularised, free W+",
              runs.result("domain_2")["domain_regularised"], runs.result("free")["image2stylegan"],
              "semantics", sign=-1),
        compared("softplus(-D) of midpoints: domain-regularised, free W+", *between_two),
        fid_of_midpoints("FID-Lite0 of midpoints: domain-regularised, free W+",
                         midpoint_features(ours), midpoint_features(free), real),
    ]  # fmt: skip


def lambda_dom_trades(runs: Runs) -> list[Measured]:
    """MSE over weights of the domain term."""
    rows = {weight: (runs.rows(f"domain_{weight}"), "domain_regularised") for weight in (0, 2, 20)}
    return [
        between("MSE: lambda_dom 0, 2", "mse", rows[0], rows[2]),
        between("MSE: lambda_dom 2, 20", "mse", rows[2], rows[20]),
    ]


def guided_over_plain(runs: Runs) -> list[Measured]:
    """Codes of the domain-guided encoder."""
    a, b = (runs.rows("idinvert"), "encode"), (runs.rows("plain_encoder"), "encode")
    return [
        between("MSE: guided, plain", "mse", a, b),
        between("Lite0: guided, plain", "lite0", a, b),
        compared("softplus(-D): guided, plain", unreal(codes(runs, "idinvert")),
                 unreal(codes(runs, "plain_encoder"))),
    ]  # fmt: skip


def moved_faces(runs: Runs) -> list[Measured]:
    """Shifted by 8 px and turned by 15 degrees."""
    found = runs.rows("moved")
    return [
        between("MSE: BDInvert, free W+", "mse", (found, "bdinvert"), (found, "image2stylegan")),
        between("Lite0: BDInvert, free W+", "lite0", (found, "bdinvert"),
                (found, "image2stylegan")),
    ]  # fmt: skip


def cells_reconstruct(runs: Runs) -> list[Measured]:
    """16 x 16 cells against 8 x 8."""
    a, b = (runs.rows("edits_16"), "bdinvert"), (runs.rows("edits_8"), "bdinvert")
    return [
        between("MSE: 16 x 16, 8 x 8", "mse", a, b),
        between("Lite0: 16 x 16, 8 x 8", "lite0", a, b),
    ]


def tuning_reconstructs(method: str) -> Callable[[Runs], list[Measured]]:
    """PTI or Clone against every method that leaves G as it is."""

    def measure(runs: Runs) -> list[Measured]:
        found = {**runs.rows("optimised"), **runs.rows("cloned")}
        others = ("encode", "domain_regularised", "image2stylegan")
        return [
            between(f"{column}: {method}, {other}", column.lower(), (found, method), (found, other))
            for other in others
            for column in ("MSE", "Lite0")
        ]

    return measure


def keeps_samples(
    method: str, words: list[str], term: str, none: str | None = None
) -> Callable[[Runs], list[Measured]]:
    """How far tuning for a face moves samples elsewhere, with a term of the method and without."""

    def measure(runs: Runs) -> list[Measured]:
        model = open_model(runs.checkpoint("psp")).model
        target = faces(model, TUNED_FACES, FACES)
        without = [] if none is None else [none]
        kept = samples_moved(model, found_by(method, model, target, [*words, term]))
        moved = samples_moved(model, found_by(method, model, target, [*words, *without]))
        what = f"Lite0 of {SAMPLES} samples to themselves before: with {term}, without"
        return [compared(what, kept, moved)]

    return measure


def nearer_to_w(other: str) -> Callable[[Runs], list[Measured]]:
    """e4e's codes against another training's."""

    def measure(runs: Runs) -> list[Measured]:
        ours, theirs = codes(runs, "e4e"), codes(runs, other)
        return [
            compared(f"distance of layers from their mean: e4e, {other}", distance_to_w(ours),
                     distance_to_w(theirs)),
            compared(f"Mahalanobis distance to W: e4e, {other}", distance_to_samples(ours),
                     distance_to_samples(theirs)),
            compared(f"softplus(-D): e4e, {other}", unreal(ours), unreal(theirs)),
        ]  # fmt: skip

    return measure


PTI_WORDS = ["inversion.pti.steps=100", "inversion.pti.lr=1e-3", "inversion.pti.threshold=null"]
CLONE_WORDS = ["inversion.clone.steps=100"]
CLAIMS = [
    Claim("psp_over_e4e", "pSp reconstructs better than e4e", "arXiv 2102.02766, table 1",
          psp_over_e4e),
    Claim("e4e_edits", "e4e edits better than pSp", "arXiv 2102.02766, sec. 5",
          edits_change_less("e4e, pSp", ("edits_e4e", "encode"), ("edits_psp", "encode"))),
    Claim("restyle_over_psp", "ReStyle reconstructs better than its base at the same number of "
          "images", "arXiv 2104.02699", restyle_over_psp),
    Claim("free_mse", "Free optimisation in W+ has a lower MSE than the domain-regularised one",
          "arXiv 2004.00049, table 2", free_has_the_best_mse),
    Claim("free_semantics", "and its codes know less: of attributes, and of what lies between two",
          "arXiv 2004.00049, tables 1 and 2", free_knows_less),
    Claim("lambda_dom", "The weight of the domain term trades MSE for semantics: a larger weight, "
          "a larger MSE", "arXiv 2004.00049, fig. 8", lambda_dom_trades),
    Claim("guided", "A domain-guided encoder's codes are better than a plain encoder's, trained on "
          "samples of G alone", "arXiv 2004.00049, table 2", guided_over_plain),
    Claim("delta", "Delta regularisation brings codes nearer to W", "arXiv 2102.02766, sec. 4",
          nearer_to_w("e4e_without_delta")),
    Claim("critic", "The critic of codes brings codes nearer to W", "arXiv 2102.02766, sec. 4",
          nearer_to_w("e4e_without_critic")),
    Claim("progressive", "Progressive training brings codes nearer to W",
          "arXiv 2102.02766, sec. 4.1", nearer_to_w("e4e_all_layers")),
    Claim("moved", "BDInvert keeps shifted and rotated images where W+ fails",
          "arXiv 2108.08998, table 1", moved_faces),
    Claim("cells", "A base code of 16 x 16 cells reconstructs better than one of 8 x 8",
          "arXiv 2108.08998, sec. 5", cells_reconstruct),
    Claim("cells_edit", "A base code of 8 x 8 cells edits better than one of 16 x 16",
          "arXiv 2108.08998, sec. 5", edits_change_less("8 x 8, 16 x 16", ("edits_8", "bdinvert"),
                                                        ("edits_16", "bdinvert"))),
    Claim("pti", "PTI reconstructs better than what leaves G as it is", "arXiv 2106.05744, table 1",
          tuning_reconstructs("pti")),
    Claim("clone", "Clone reconstructs better than what leaves G as it is", "arXiv 2202.11833",
          tuning_reconstructs("clone")),
    Claim("locality", "PTI's locality term keeps other samples as they were", "arXiv 2106.05744",
          keeps_samples("pti", PTI_WORDS, "inversion.pti.locality_weight=0.1")),
    Claim("global", "Clone's global term keeps other samples as they were", "arXiv 2202.11833",
          keeps_samples("clone", CLONE_WORDS, "inversion.clone.global_weight=1",
                        "inversion.clone.global_weight=0")),
]  # fmt: skip


# ------------------------------------------------------------------ the page


def main() -> None:
    """Measure what was not measured yet, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--only", nargs="+", default=[c.name for c in CLAIMS],
                        choices=[c.name for c in CLAIMS])  # fmt: skip
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "CLAIMS.md")
    parser.add_argument("--train", nargs="*", default=[], help="words added to every training")
    parser.add_argument("--evaluate", nargs="*", default=[], help="and to every evaluation")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="processes side by side")
    args = parser.parse_args()
    runs = Runs(args.out, {"train": args.train, "evaluate": args.evaluate}, args.cores)
    if len(args.only) == len(CLAIMS):
        runs.carry_out_all()
    found: dict[str, list[Measured]] = {}
    for claim in CLAIMS:
        path = args.out / "claims" / f"{claim.name}.json"
        if claim.name not in args.only and not path.is_file():
            continue
        found[claim.name] = remembered(path, claim, runs)
        for m in found[claim.name]:
            print(f"{claim.name}: {m.what}: {m.numbers}: {m.verdict}", flush=True)
    told = {claim: found.get(claim.name, []) for claim in CLAIMS}
    write_atomic(args.page, page(told).encode())
    for name, measured in found.items():
        write_atomic(args.page.parent / "claims" / f"{name}.svg", figure(measured))
    print(f"written: {args.page}")


def remembered(path: Path, claim: Claim, runs: Runs) -> list[Measured]:
    """What was measured for a claim, now or before."""
    if not path.is_file():
        measured = [asdict(m) for m in claim.measure(runs)]
        write_atomic(path, json.dumps(measured, indent=1).encode())
    return [Measured(**m) for m in json.loads(path.read_text())]


if __name__ == "__main__":
    main()
