"""`ganinv edit`: codes along directions, between each other, or crossed, as strips, videos, codes.

OUT/<edit>.png                 a row for each of the first images, a column for each strength
OUT/<edit>.webp (or .mp4)      the same, moving from one end to the other and back
OUT/strips/<edit>/<image>.png  one strip for each image
OUT/codes/<edit>.npy, .pt      float32 [N,S,L,D], the edited codes
OUT/edit.json                  names, strengths, directions and generator

<edit> is the name of a direction, `interpolate` or `crossover`; the last two have a row for each
image and the one after it, <image>--<next>.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.cli._edited import Edited, Given, along, crossed_over, interpolated
from ganinv.cli._editing import (
    check_pictures,
    layers_of,
    open_generator,
    read_codes,
    strengths_of,
)
from ganinv.core.errors import ConfigError, WeightsMissing, explain

if TYPE_CHECKING:
    from torch import Tensor

    from ganinv.core.direction import Direction
    from ganinv.core.interface import Inversion
    from ganinv.generator.importer.bundle import AnyGenerator

EXAMPLES = """examples:
  ganinv edit inverted --direction smile.safetensors --strengths -3..3 --checkpoint runs/NAME/checkpoints/best.ckpt --out edited
  ganinv edit inverted/latents.pt --direction age.pt --direction pca.safetensors:3 --strengths -2,0,2 --generator ffhq.pkl --out edited
  ganinv edit tuned/inversions/ME.safetensors --direction smile --strengths -3..3:13 --video mp4 --out edited
  ganinv edit inverted --interpolate 7 --crossover 0-3 --checkpoint runs/NAME/checkpoints/best.ckpt --out between

LATENTS is latents.pt or latents.npy of `ganinv invert`, the folder it wrote, or files of its
inversions/, whose f, noise maps and changes of weights stay as they are.
"""  # noqa: E501
SHOWN = 8  # images of a sheet and of a video
BATCH = 8


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "edit",
        help="codes of ganinv invert moved along directions, or into each other: strips, videos",
        description="Move codes along directions of ganinv fit or of published files, from each "
        "image to the next, or exchange layers of both.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser._negative_number_matcher = re.compile(r"-[\d.]")  # -3..3 is a value, not an option
    parser.add_argument("latents", type=Path)
    parser.add_argument("--direction", action="append", default=[], metavar="FILE[:NAME]",
                        help="of ganinv fit, or as published; may be repeated")  # fmt: skip
    parser.add_argument("--strengths", metavar="A..B", help="default -3..3, in steps of 1; "
                        "-3..3:13 in 13; or a list, -2,0,2")  # fmt: skip
    parser.add_argument("--layers", metavar="A-B", help="of wp, instead of the direction's own")
    parser.add_argument("--interpolate", type=int, metavar="N", help="N pictures from each image "
                        "to the next")  # fmt: skip
    parser.add_argument("--crossover", metavar="A-B", help="each image with these layers of the "
                        "next, and the next with its (Image2StyleGAN)")  # fmt: skip
    parser.add_argument("--generator", metavar="FILE", help="a generator's file or shipped name")
    parser.add_argument("--checkpoint", metavar="FILE", help="whose generator it is")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--video", default="webp", metavar="KIND", help="webp (default), mp4, none")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N codes")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Edit."""
    _check(args)
    strengths = strengths_of(args.strengths or "-3..3")
    _check_out(args.out)
    from ganinv.evaluation.strip import check_video

    check_video(args.video)
    directions = [_labelled(text) for text in args.direction]
    labels = [label for label, _ in directions]
    labels += [kind for kind in ("interpolate", "crossover") if getattr(args, kind) is not None]
    if len(set(labels)) < len(labels):
        raise ConfigError(
            explain(f"the directions {', '.join(labels)}", "a name for each", "rename a file")
        )
    given = read_given(args.latents, args.limit)
    G = _generator(args, given)
    layers = layers_of(args.layers, G.num_ws)
    crossed = layers_of(args.crossover, G.num_ws, "--crossover")
    from ganinv.editing.direction import check_generator

    for _, direction in directions:
        check_generator(direction, G)
    edits = [along(given, *found, strengths, layers) for found in directions]
    if args.interpolate is not None:
        edits.append(interpolated(given, args.interpolate))
    if crossed is not None:
        edits.append(crossed_over(given, crossed, args.crossover))
    G.to(_device(args.device))
    for edit in edits:
        _write(args, G, edit)
    about = {
        "command": "ganinv edit",
        "latents": str(args.latents),
        "images": given.names,
        "strengths": strengths if directions else None,
        "layers": layers,
        "generator": G.source,
        "generator_sha256": G.sha256,
        "directions": {label: dict(d.fitted) | {"scale": d.scale} for label, d in directions},
        "interpolate": args.interpolate,
        "crossover": crossed,
    }
    from ganinv.core.safe.io import write_atomic

    write_atomic(args.out / "edit.json", json.dumps(about, indent=1).encode())
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.limit is not None and args.limit < 1:
        raise ConfigError(explain(f"--limit {args.limit}", "at least 1", "raise it"))
    if not args.direction and args.interpolate is None and args.crossover is None:
        raise ConfigError(
            explain("ganinv edit without an edit", "--direction, --interpolate or --crossover",
                    "e.g. add --direction FILE")
        )  # fmt: skip
    for option in ("strengths", "layers"):
        if getattr(args, option) is not None and not args.direction:
            raise ConfigError(
                explain(f"--{option} without --direction", "the direction that it is of",
                        f"add --direction FILE, or leave --{option} out")
            )  # fmt: skip
    check_pictures(args.interpolate)
    if not args.latents.exists():
        raise _no_codes(args.latents)


def _write(args: argparse.Namespace, G: AnyGenerator, edit: Edited) -> None:
    """One edit's files."""
    import io

    import numpy as np
    import torch

    from ganinv.core.safe.io import write_atomic
    from ganinv.evaluation import strip
    from ganinv.evaluation.report import png

    shown: list[Tensor] = []
    codes, label = [], edit.label
    for number, name in enumerate(_files(edit.names)):
        moved = edit.row(number)
        images = _render(G, moved)
        write_atomic(
            args.out / "strips" / label / f"{name}.png", png(strip.strip([images], edit.labels))
        )
        codes.append(torch.cat([m.wp for m in moved]))
        if len(shown) < SHOWN:
            shown.append(images)
    write_atomic(args.out / f"{label}.png", png(strip.strip(shown, edit.labels)))
    edited, plain, array = torch.stack(codes), io.BytesIO(), io.BytesIO()
    torch.save(edited, plain)
    np.save(array, edited.numpy(), allow_pickle=False)
    write_atomic(args.out / "codes" / f"{label}.pt", plain.getvalue())
    write_atomic(args.out / "codes" / f"{label}.npy", array.getvalue())
    print(f"{args.out / label}.png  {len(edit.names)} {edit.what} {', '.join(edit.labels)}")
    if edit.moves and args.video != "none" and len(set(edit.strengths)) > 1:
        print(_video(args, G, edit))


def _video(args: argparse.Namespace, G: AnyGenerator, edit: Edited) -> Path:
    """The first images, there and back."""
    from ganinv.core.safe.io import write_atomic
    from ganinv.evaluation import strip

    steps, rows = strip.video_strengths(edit.strengths), range(len(edit.names))[:SHOWN]
    once = {s: _render(G, [edit.at(row, s) for row in rows]) for s in sorted(set(steps))}
    frames = [strip.frame(once[s]) for s in steps]
    path: Path = args.out / f"{edit.label}.{args.video}"
    if args.video == "mp4":
        strip.write_mp4(path, frames)
    else:
        write_atomic(path, strip.animation(frames))
    return path


def _render(G: AnyGenerator, moved: list[Inversion]) -> Tensor:
    """Images of inversions of one image each, uint8 [S,3,R,R] on the CPU."""
    import torch

    from ganinv.core.image import to_uint8
    from ganinv.inversion.model import joined, render

    parts = []
    with torch.no_grad():
        for first in range(0, len(moved), BATCH):
            batch = joined(moved[first : first + BATCH], G.w_avg.device)
            parts.append(to_uint8(render(G, batch)).cpu())
    return torch.cat(parts)


# ------------------------------------------------------------------ what is given


def read_given(path: Path, limit: int | None) -> Given:
    """The codes of LATENTS.

    Raises:
        WeightsMissing, WeightsError, ConfigError: nothing there, no codes, or several generators'.
    """
    if path.is_dir():
        inner = path / "inversions" if (path / "inversions").is_dir() else path
        files = sorted(inner.rglob("*.safetensors"))
        if files:
            return _inversions(files[:limit], path, inner)
        path = path / "latents.pt"
    if not path.is_file():
        raise _no_codes(path)
    if path.suffix == ".safetensors":
        return _inversions([path], path, path.parent)
    return _codes(path, limit)


def _no_codes(path: Path) -> WeightsMissing:
    return WeightsMissing(
        explain(f"no codes {path}", "latents.pt or .npy, or a folder of `ganinv invert`",
                "check the path")
    )  # fmt: skip


def _inversions(files: list[Path], path: Path, folder: Path) -> Given:
    from ganinv.inversion.file import read_inversion

    read = [read_inversion(file) for file in files]
    generators = {metadata.get("generator_sha256") for _, metadata in read}
    if len(generators) > 1:
        raise ConfigError(
            explain(f"{path} with inversions of {len(generators)} generators", "those of one",
                    "pass them one by one")
        )  # fmt: skip
    source = read[0][1].get("generator_source")
    names = [str(file.relative_to(folder).with_suffix("")) for file in files]
    sha256 = next(iter(generators))
    return Given(names, [found for found, _ in read], source if type(source) is str else None,
                 sha256 if type(sha256) is str else None, path)  # fmt: skip


def _codes(path: Path, limit: int | None) -> Given:
    from ganinv.core.interface import Inversion

    codes = read_codes(path)[:limit]
    about: Any = {}
    if (beside := path.parent / "invert.json").is_file():
        try:
            about = json.loads(beside.read_text())
        except (ValueError, RecursionError):
            about = {}
    about = about if isinstance(about, dict) else {}
    names, settings = about.get("images"), about.get("settings")
    if not isinstance(names, list) or len(names) < len(codes):
        names = [f"{i:05d}" for i in range(len(codes))]
    sha256 = settings.get("generator_sha256") if isinstance(settings, dict) else None
    stems = [str(Path(str(name)).with_suffix("")) for name in names[: len(codes)]]
    found = [Inversion(wp=code[None]) for code in codes]
    return Given(stems, found, None, sha256 if type(sha256) is str else None, path)


def _generator(args: argparse.Namespace, given: Given) -> AnyGenerator:
    """The asked generator, or the one that the file names; it must fit the codes.

    Raises:
        ConfigError: none is named. WeightsError: another one.
    """
    from dataclasses import replace

    from ganinv.core.errors import WeightsError
    from ganinv.core.latent import repeat_w

    if args.generator is not None and args.checkpoint is not None:
        raise ConfigError(
            explain("--generator and --checkpoint", "one of them", "leave the other one out")
        )
    text = args.generator or args.checkpoint or given.generator
    if text is None:
        raise ConfigError(
            explain(f"{given.path}, which names no generator", "the one whose codes they are",
                    "add --generator FILE, or --checkpoint FILE of the encoder")
        )  # fmt: skip
    G = open_generator(text)
    if given.sha256 is not None and G.sha256 is not None and given.sha256 != G.sha256:
        raise WeightsError(
            explain(f"{given.path}, found in a generator with sha256 {given.sha256[:12]}",
                    f"{G.sha256[:12]}, that of {G.source}", "pass its own: --generator FILE")
        )  # fmt: skip
    for i, found in enumerate(given.found):
        wp = found.wp
        if wp.shape[-1] != G.w_dim or (wp.ndim == 3 and wp.shape[1] != G.num_ws):
            raise WeightsError(
                explain(f"{given.path} with codes of {list(wp.shape[1:])}",
                        f"[{G.num_ws}, {G.w_dim}], as those of {G.source}", "pass their generator")
            )  # fmt: skip
        given.found[i] = replace(found, wp=repeat_w(wp, G.num_ws).clone())
    return G


def _labelled(text: str) -> tuple[str, Direction]:
    """The direction, and its name in OUT."""
    from ganinv.core.direction import chosen
    from ganinv.editing.direction import read_directions, split_name

    path, name = split_name(text)
    known = read_directions(path)
    found = chosen(known, name, path)
    label = found.name if len(known) == 1 else f"{path.stem}-{found.name}"
    return re.sub(r"[^\w.=+-]", "_", label)[:100].lstrip(".") or "_", found


def _files(names: list[str]) -> list[str]:
    """A file's name for each image, that leads nowhere else."""
    from ganinv.cli._inputs import inside

    return [str(inside(name)) for name in names]


def _device(name: str) -> Any:
    import torch

    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(
            explain(f"--device {name}", "auto, cpu, or cuda where there is a GPU", "set it")
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _check_out(out: Path) -> None:
    from ganinv.run.disk import check_writable

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(
            explain(f"--out {out}, which holds other files", "a new or empty folder",
                    "choose another; nothing was overwritten")
        )  # fmt: skip
    check_writable(out, "--out", "choose another --out, or make it writable")
