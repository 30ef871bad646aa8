"""`ganinv fit`: directions of a generator's W, and the probes that say what an image shows.

sefa       closed form, from the generator's own weights
ganspace   principal components of W
boundary   InterFaceGAN's: a linear SVM between two sides of an attribute, whose scores come from a
           probe (of samples of the generator) or from a csv (of given codes)
probe      heads on a frozen backbone, from a dataset's known attributes

Each writes one .safetensors with its provenance; directions go into `ganinv edit`, `editing=` of
evaluate.py, and `--condition`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.cli._editing import check_new, layers_of, open_generator, read_codes
from ganinv.core.errors import ConfigError, explain

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.core.direction import Direction
    from ganinv.generator.importer.bundle import AnyGenerator

EXAMPLES = """examples:
  ganinv fit sefa stylegan2_avatars64 --layers 0-3 --count 10 --out sefa.safetensors
  ganinv fit ganspace stylegan2_avatars64 --count 20 --out pca.safetensors
  ganinv fit probe --dataset avatars64 --out probe.safetensors
  ganinv fit boundary stylegan2_avatars64 --probe probe.safetensors --attribute smile --out smile.safetensors
  ganinv fit boundary ffhq.pkl --codes latents.npy --scores scores.csv --attribute age --condition glasses.safetensors --out age.safetensors

GENERATOR is a file that generator.weights takes, a checkpoint, or the name of a shipped generator.
"""  # noqa: E501


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "fit",
        help="directions to edit along (boundary, sefa, ganspace), and attribute probes",
        description="Find directions in a generator's W, or fit probes of a dataset's attributes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    _sefa(kinds.add_parser("sefa", help="eigenvectors of the style layers' weights"))
    _ganspace(kinds.add_parser("ganspace", help="principal components of W"))
    _boundary(kinds.add_parser("boundary", help="the hyperplane between two sides of an attribute"))
    _probe(kinds.add_parser("probe", help="what an image shows, from a dataset's attributes"))


def _common(parser: argparse.ArgumentParser, run: Any, generator: bool = True) -> None:
    if generator:
        parser.add_argument("generator", help="a file, or the name of a shipped generator")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn, default 0")
    parser.set_defaults(run=run)


def _sefa(parser: argparse.ArgumentParser) -> None:
    _common(parser, run_sefa)
    parser.add_argument("--layers", metavar="A-B", help="of wp; default all")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="default 10")
    parser.add_argument(
        "--normalise", action="store_true", help="rows of A of length 1, as the released code"
    )


def _ganspace(parser: argparse.ArgumentParser) -> None:
    _common(parser, run_ganspace)
    parser.add_argument("--samples", type=int, default=100_000, metavar="N", help="default 100000")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="default 20")


def _boundary(parser: argparse.ArgumentParser) -> None:
    _common(parser, run_boundary)
    parser.add_argument("--attribute", required=True, metavar="NAME", help="of the probe or csv")
    parser.add_argument("--probe", type=Path, metavar="FILE", help="scores samples of GENERATOR")
    parser.add_argument("--samples", type=int, default=10_000, metavar="N", help="default 10000")
    parser.add_argument("--codes", type=Path, metavar="FILE", help="latents.pt or .npy, with "
                        "--scores instead of --probe; [N,D]: W, [N,L,D]: W+")  # fmt: skip
    parser.add_argument("--scores", type=Path, metavar="CSV", help="a line for each code, a column "
                        "of the attribute's name")  # fmt: skip
    parser.add_argument("--ratio", type=float, default=0.02, metavar="R", help="of the codes that "
                        "each side has; above 1 a number of codes; default 0.02")  # fmt: skip
    parser.add_argument("--condition", action="append", default=[], metavar="FILE[:NAME]",
                        help="leave this direction out of the normal; may be repeated")  # fmt: skip


def _probe(parser: argparse.ArgumentParser) -> None:
    _common(parser, run_probe, generator=False)
    parser.add_argument("--dataset", default="avatars64", metavar="NAME", help="of conf/dataset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                        help="of the dataset, e.g. root=data/mine; may be repeated")  # fmt: skip
    parser.add_argument("--attributes", metavar="A,B", help="default every number and every yes or "
                        "no; NAME.0 of a list, NAME=VALUE of text")  # fmt: skip
    parser.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME")
    parser.add_argument("--stages", default="1,2", metavar="A,B", help="of the backbone, default "
                        "1,2 (H/4 and H/8); none: its pooled features")  # fmt: skip
    parser.add_argument("--grid", type=int, default=8, metavar="N", help="cells a side, default 8")
    parser.add_argument("--limit", type=int, metavar="N", help="training images, default all")


# ------------------------------------------------------------------ directions


def run_sefa(args: argparse.Namespace) -> int:
    """SeFa."""
    from ganinv.editing.sefa import sefa

    check_new(args.out)
    G = open_generator(args.generator)
    layers = layers_of(args.layers, G.num_ws)
    found = sefa(G, layers=layers, count=args.count, normalise=args.normalise, seed=args.seed)
    _write(args.out, found, G)
    values = ", ".join(f"{v:.3g}" for v in found[0].fitted["eigenvalues"])
    print(f"eigenvalues: {values}")
    return 0


def run_ganspace(args: argparse.Namespace) -> int:
    """GANSpace."""
    from ganinv.editing.ganspace import ganspace

    check_new(args.out)
    G = open_generator(args.generator)
    found = ganspace(G, samples=args.samples, count=args.count, seed=args.seed)
    _write(args.out, found, G)
    shares = ", ".join(f"{100 * v:.1f}" for v in found[0].fitted["share_of_variance"])
    print(f"share of W's variance, per cent: {shares}")
    return 0


def run_boundary(args: argparse.Namespace) -> int:
    """InterFaceGAN."""
    from dataclasses import replace

    from ganinv.editing.direction import check_generator, find_direction
    from ganinv.editing.interfacegan import boundary, project

    _check_boundary(args)
    G = open_generator(args.generator)
    conditions = [find_direction(text) for text in args.condition]
    for condition in conditions:
        check_generator(condition, G)
    codes, scores, source = _probed(args, G) if args.probe else _given(args, G)
    found = boundary(codes, scores, name=args.attribute, ratio=args.ratio, seed=args.seed,
                     sha256=G.sha256)  # fmt: skip
    known = dict(found.fitted) | source
    if conditions:
        found = project(found, conditions)
        known["projected_off"] = [c.name for c in conditions]
    _write(args.out, [replace(found, fitted=known)], G)
    accuracies = known["accuracy"]
    to = f" to {100 * max(accuracies):.1f} %, layer by layer" if len(accuracies) > 1 else ""
    print(
        f"{args.attribute}: {known['chosen']} of {known['codes']} codes; right on the 30 % of "
        f"them that were held out: {100 * min(accuracies):.1f} %{to}"
    )
    print(f"a strength of 1 is {found.scale:.3g} in W, {known['strength 1']}")
    return 0


def _check_boundary(args: argparse.Namespace) -> None:
    check_new(args.out)
    both = args.codes is not None and args.scores is not None
    if (args.probe is None) is not both or (args.codes is None) is not (args.scores is None):
        raise ConfigError(
            explain("a boundary without scores" if args.probe is None else
                    "--probe with --codes or --scores", "--probe FILE, or --codes and --scores",
                    "name one source of scores")
        )  # fmt: skip
    if not args.ratio > 0:
        raise ConfigError(explain(f"--ratio {args.ratio}", "a number above 0", "e.g. 0.02"))


def _probed(args: argparse.Namespace, G: AnyGenerator) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Samples of W and the probe's scores of their images."""
    import torch
    from tqdm import tqdm

    from ganinv.config.probe import load_probe
    from ganinv.core.image import to_uint8, to_unit
    from ganinv.core.latent import repeat_w
    from ganinv.core.safe.io import sha256_file
    from ganinv.editing.samples import sample_w

    probe = load_probe(args.probe)
    place = probe.place(args.attribute)
    head = probe.heads[place]
    print(f"{args.attribute}: the probe has {head.words} on the test split")
    codes, scores = [], []
    with torch.no_grad(), tqdm(total=args.samples, unit="img", leave=False, disable=None) as bar:
        for w in sample_w(G, args.samples, args.seed):
            for part in w.split(50):
                image = G.synthesis(repeat_w(part, G.num_ws))
                scores.append(probe(to_unit(to_uint8(image)))[:, place])
                bar.update(len(part))
            codes.append(w)
    source = {"probe_sha256": sha256_file(args.probe), "probe": head.words, "seed": args.seed}
    source |= {"probe_test": head.test}
    return torch.cat(codes), torch.cat(scores), source


def _given(args: argparse.Namespace, G: AnyGenerator) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Codes of a file and scores of a csv."""
    from ganinv.core.safe.io import sha256_file

    codes = read_codes(args.codes)
    wanted = (G.w_dim,) if codes.ndim == 2 else (G.num_ws, G.w_dim)
    if tuple(codes.shape[1:]) != wanted:
        raise ConfigError(
            explain(f"{args.codes} of {list(codes.shape)}",
                    f"[N,{G.w_dim}] or [N,{G.num_ws},{G.w_dim}], as the generator's codes",
                    "pass the generator that they are of")
        )  # fmt: skip
    source = {"codes_sha256": sha256_file(args.codes), "scores_sha256": sha256_file(args.scores)}
    return codes, _scores(args.scores, args.attribute, len(codes)), source


def _scores(path: Path, attribute: str, count: int) -> Tensor:
    """A column of a csv.

    Raises:
        ConfigError: no such file or column, a score that is no number, or another number of them.
    """
    import csv

    import torch

    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            texts = [row.get(attribute) for row in reader]
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            explain(f"--scores {path}, which cannot be read ({type(error).__name__})",
                    "a csv with a line for each code", "check the path")
        ) from error  # fmt: skip
    if attribute not in columns:
        raise ConfigError(
            explain(f"{path} without a column {attribute}", f"one of {', '.join(columns[:30])}",
                    "name one of these: --attribute")
        )  # fmt: skip
    if len(texts) != count:
        raise ConfigError(
            explain(f"{path} with {len(texts)} scores for {count} codes", "one for each code, in "
                    "their order", "pass the csv of these codes")
        )  # fmt: skip
    values = []
    for number, text in enumerate(texts, 2):
        try:
            values.append(float(text or ""))
        except ValueError:
            raise ConfigError(
                explain(f"{path}, line {number}: {attribute} is {str(text)[:40]!r}", "a number",
                        "correct it, or leave the code out")
            ) from None  # fmt: skip
    return torch.tensor(values)


def _write(path: Path, found: list[Direction], G: AnyGenerator) -> None:
    from ganinv.core.direction import write_directions

    write_directions(path, found, generator_source=G.source)
    rows, width = found[0].vectors.shape
    names = found[0].name if len(found) == 1 else f"{found[0].name} to {found[-1].name}"
    print(f"{path}  {len(found)} direction{'s' if len(found) > 1 else ''} of {rows} x {width} "
          f"({names})")  # fmt: skip


# ------------------------------------------------------------------ probes


def run_probe(args: argparse.Namespace) -> int:
    """Probes."""
    from ganinv.cli._probing import fit_probe

    check_new(args.out)
    return fit_probe(args)
