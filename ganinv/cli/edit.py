"""`ganinv edit`: codes along directions, as strips, videos and codes.

OUT/<direction>.png                 a row for each of the first images, a column for each strength
OUT/<direction>.webp (or .mp4)      the same, moving from one end to the other and back
OUT/strips/<direction>/<image>.png  one strip for each image
OUT/codes/<direction>.npy, .pt      float32 [N,S,L,D], the edited codes
OUT/edit.json                       names, strengths, directions and generator
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.cli._editing import layers_of, open_generator, read_codes, strengths_of
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

LATENTS is latents.pt or latents.npy of `ganinv invert`, the folder it wrote, or files of its
inversions/, whose f, noise maps and changes of weights stay as they are.
"""  # noqa: E501
SHOWN = 8  # images of a sheet and of a video
BATCH = 8


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "edit",
        help="codes of ganinv invert moved along directions: strips, videos, codes",
        description="Move codes along directions of ganinv fit or of published files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser._negative_number_matcher = re.compile(r"-[\d.]")  # -3..3 is a value, not an option
    parser.add_argument("latents", type=Path)
    parser.add_argument("--direction", action="append", required=True, metavar="FILE[:NAME]",
                        help="of ganinv fit, or as published; may be repeated")  # fmt: skip
    parser.add_argument("--strengths", default="-3..3", metavar="A..B", help="default -3..3, in "
                        "steps of 1; -3..3:13 in 13; or a list, -2,0,2")  # fmt: skip
    parser.add_argument("--layers", metavar="A-B", help="of wp, instead of the direction's own")
    parser.add_argument("--generator", metavar="FILE", help="a generator's file or shipped name")
    parser.add_argument("--checkpoint", metavar="FILE", help="whose generator it is")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--video", default="webp", metavar="KIND", help="webp (default), mp4, none")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N codes")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Given:
    """Codes, their names, and where they come from."""

    names: list[str]
    found: list[Inversion]  # of one image each
    generator: str | None  # as the file names it
    sha256: str | None  # of the generator, where the file says it
    path: Path


def run(args: argparse.Namespace) -> int:
    """Edit."""
    from ganinv.evaluation.strip import check_video

    strengths = strengths_of(args.strengths)
    check_video(args.video)
    _check_out(args.out)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(explain(f"--limit {args.limit}", "at least 1", "raise it"))
    directions = [_labelled(text) for text in args.direction]
    labels = [label for label, _ in directions]
    if len(set(labels)) < len(labels):
        raise ConfigError(
            explain(f"the directions {', '.join(labels)}", "a name for each", "rename a file")
        )
    given = read_given(args.latents, args.limit)
    G = _generator(args, given)
    layers = layers_of(args.layers, G.num_ws)
    from ganinv.editing.direction import check_generator

    for _, direction in directions:
        check_generator(direction, G)
    G.to(_device(args.device))
    for label, direction in directions:
        _edit(args, G, given, label, direction, strengths, layers)
    about = {
        "command": "ganinv edit",
        "latents": str(args.latents),
        "images": given.names,
        "strengths": strengths,
        "layers": layers,
        "generator": G.source,
        "generator_sha256": G.sha256,
        "directions": {label: dict(d.fitted) | {"scale": d.scale} for label, d in directions},
    }
    from ganinv.core.safe.io import write_atomic

    write_atomic(args.out / "edit.json", json.dumps(about, indent=1).encode())
    return 0


def _edit(
    args: argparse.Namespace, G: AnyGenerator, given: Given, label: str, direction: Direction,
    strengths: list[float], layers: list[int] | None,
) -> None:  # fmt: skip
    """One direction's files."""
    import io

    import numpy as np
    import torch

    from ganinv.core.safe.io import write_atomic
    from ganinv.editing.direction import move, signed
    from ganinv.evaluation import strip
    from ganinv.evaluation.report import png

    shown: list[Tensor] = []
    codes, labels = [], [signed(strength) for strength in strengths]
    for name, found in zip(_files(given.names), given.found, strict=True):
        moved = [move(found, direction, strength, layers) for strength in strengths]
        images = _render(G, moved)
        write_atomic(
            args.out / "strips" / label / f"{name}.png", png(strip.strip([images], labels))
        )
        codes.append(torch.cat([m.wp for m in moved]))
        if len(shown) < SHOWN:
            shown.append(images)
    write_atomic(args.out / f"{label}.png", png(strip.strip(shown, labels)))
    edited, plain, array = torch.stack(codes), io.BytesIO(), io.BytesIO()
    torch.save(edited, plain)
    np.save(array, edited.numpy(), allow_pickle=False)
    write_atomic(args.out / "codes" / f"{label}.pt", plain.getvalue())
    write_atomic(args.out / "codes" / f"{label}.npy", array.getvalue())
    print(f"{args.out / label}.png  {len(given.names)} images, strengths "
          f"{', '.join(labels)}")  # fmt: skip
    if args.video == "none" or len(set(strengths)) < 2:
        return
    steps = strip.video_strengths(strengths)
    once = {s: torch.cat([_render(G, [move(f, direction, s, layers)]) for f in given.found[:SHOWN]])
            for s in sorted(set(steps))}  # fmt: skip
    frames = [strip.frame(once[s]) for s in steps]
    path = args.out / f"{label}.{args.video}"
    if args.video == "mp4":
        strip.write_mp4(path, frames)
    else:
        write_atomic(path, strip.animation(frames))
    print(path)


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
        raise WeightsMissing(
            explain(f"no codes {path}", "latents.pt or .npy, or a folder of `ganinv invert`",
                    "check the path")
        )  # fmt: skip
    if path.suffix == ".safetensors":
        return _inversions([path], path, path.parent)
    return _codes(path, limit)


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
