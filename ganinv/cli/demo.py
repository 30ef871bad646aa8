"""`ganinv demo`: a page in the browser, photos in, edited faces out (Gradio, the extra `demo`).

It answers this machine alone unless `--host` says otherwise, sends nothing anywhere, and its page
loads nothing from other hosts.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganinv.core.errors import ConfigError, explain
from ganinv.run.storage.fetch import check_there

if TYPE_CHECKING:
    from ganinv.cli._demo_work import Studio

EXAMPLES = """examples:
  ganinv demo runs/NAME/checkpoints/best.ckpt
  ganinv demo runs/NAME/checkpoints/best.ckpt --directions directions/ --components 10
  ganinv demo e4e_ffhq_encode.pt --align --size 1024 --directions age.pt --examples photos/

--directions takes what ganinv fit writes and the files that others published (docs/EDITING.md).
"""
LOCAL = ("127.0.0.1", "localhost", "::1")


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo",
        help="a page in the browser: drop photos, invert, edit by sliders, download",
        description="Serve a page on this machine until Ctrl-C.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a .ckpt, a bundle, or pSp's, e4e's, ReStyle's"
    )
    parser.add_argument("--generator", type=Path, metavar="FILE", help="where it has moved")
    parser.add_argument("--directions", type=Path, action="append", default=[], metavar="PATH",
                        help="a file or a folder of directions; may be repeated")  # fmt: skip
    parser.add_argument("--components", type=int, default=6, metavar="N", help="SeFa's first N "
                        "directions, fitted at the start; default 6")  # fmt: skip
    parser.add_argument("--strength", type=float, default=3.0, metavar="S",
                        help="sliders go from -S to S; default 3")  # fmt: skip
    parser.add_argument("--methods", metavar="A,B", help="of conf/inversion; default all that work "
                        "on this model")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                        help="inversion.NAME.KEY=, or loss=lpips_vgg; may be repeated")  # fmt: skip
    parser.add_argument("--size", type=int, metavar="PX", help="of the images that methods "
                        "compare; default what the encoder reads")  # fmt: skip
    parser.add_argument("--examples", type=Path, metavar="DIR", help="photos to begin with; "
                        "default drawn faces, for a model that was trained on them")  # fmt: skip
    parser.add_argument("--align", action="store_true", help="faces are to be aligned unless a "
                        "visitor says otherwise")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="whom to answer: "
                        "default this machine alone; 0.0.0.0: everyone who reaches it")  # fmt: skip
    parser.add_argument("--port", type=int, metavar="N", help="default the first free of 7860 on")
    parser.add_argument("--share", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    _check(args)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    from ganinv.cli._demo_offer import first_photos
    from ganinv.cli._demo_page import build_page

    studio, no_align = _studio(args)
    with tempfile.TemporaryDirectory(prefix="ganinv-demo-") as folder:
        first = first_photos(studio.opened, Path(folder), args.examples)
        page = build_page(studio, first, args.align, no_align)
        try:
            address = _launch(page, args.host, args.port)
            print(f"{address}  (Ctrl-C ends it)", flush=True)
            if args.host not in LOCAL:
                print("everyone who reaches this machine can use the page: it asks for no password")
            wait(address)
        except KeyboardInterrupt:
            print("\nended")
        finally:
            page.close(verbose=False)
    return 0


def wait(address: str) -> None:
    """Until Ctrl-C."""
    threading.Event().wait()


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be, before a model is loaded.

    Raises:
        ConfigError: naming the option.
        WeightsMissing: no such model.
    """
    if args.share:
        raise ConfigError(
            explain("--share, which leads photos over another company's server",
                    "a page of this machine", "ssh -L 7860:localhost:7860 MACHINE, or --host "
                    "0.0.0.0 in a network whose people you trust")
        )  # fmt: skip
    if not 0 <= args.components <= 60:
        raise ConfigError(explain(f"--components {args.components}", "0 to 60", "e.g. 6"))
    if not (math.isfinite(args.strength) and 0 < args.strength <= 1000):
        raise ConfigError(
            explain(f"--strength {args.strength}", "a number above 0, at most 1000", "e.g. 3")
        )
    if args.port is not None and not 1 <= args.port <= 65535:
        raise ConfigError(explain(f"--port {args.port}", "1 to 65535", "e.g. 7860"))
    check_there(args.checkpoint)
    if find_spec("gradio") is None:
        raise ConfigError(
            explain("ganinv demo without the package gradio", "the package",
                    'pip install "ganinv[demo]"')
        )  # fmt: skip


def _studio(args: argparse.Namespace) -> tuple[Studio, str]:
    """The model with what works on it, told on the terminal, and why faces cannot be aligned."""
    import torch

    from ganinv.cli._align_options import LONGEST, MIN_SCORE
    from ganinv.cli._demo_offer import find_controls, offered
    from ganinv.cli._demo_work import Studio
    from ganinv.cli._inputs import task_of
    from ganinv.cli._methods import check_methods
    from ganinv.config.folder import choices
    from ganinv.dataset.faces import DlibDetector
    from ganinv.evaluation.open import open_model

    if args.device not in ("auto", "cpu") and not torch.cuda.is_available():
        raise ConfigError(
            explain(f"--device {args.device}", "auto, cpu, or cuda where there is a GPU", "set it")
        )
    opened = open_model(args.checkpoint, args.generator)
    task = task_of(opened.model, None)
    if args.size is not None:
        check_methods("NAME", opened.model, task, args.size)
    names = choices("inversion") if args.methods is None else set(args.methods.split(","))
    if unknown := names - choices("inversion"):
        raise ConfigError(
            explain(f"--methods {', '.join(sorted(unknown))}",
                    f"of {', '.join(sorted(choices('inversion')))}", "correct the name")
        )  # fmt: skip
    methods, refused = offered(names, args.settings, opened, args.size)
    if args.methods is not None and refused:
        raise ConfigError(next(iter(refused.values())))
    controls, others = find_controls(args.directions, opened.generator, args.components)
    print(f"{args.checkpoint}: {opened.words}")
    for what, left_out in (("method", refused), ("direction", others)):
        for name, reason in left_out.items():
            print(f"left out: the {what} {name}: {reason}")
    detector, no_align = None, "the encoder reads no photos"
    if task.reads not in ("grey", "labels"):
        try:
            detector, no_align = DlibDetector(longest=LONGEST, min_score=MIN_SCORE), ""
        except ConfigError as error:
            no_align = str(error)
    if args.align and no_align:
        raise ConfigError(f"--align: {no_align}")
    gpu = args.device != "cpu" and torch.cuda.is_available()
    studio = Studio(
        opened, device=torch.device("cuda" if gpu else "cpu"), methods=methods, controls=controls,
        detector=detector, size=args.size, strength=args.strength,
    )  # fmt: skip
    return studio, no_align


def _launch(page: Any, host: str, port: int | None) -> str:
    """Start the server; returns its address.

    Raises:
        ConfigError: a host or port that cannot be taken.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    from ganinv.cli._demo_guard import Guard
    from ganinv.cli._demo_page import CSS
    from ganinv.cli._demo_work import MOST_BYTES, MOST_PHOTOS

    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    guard = Middleware(Guard, most_bytes=(MOST_PHOTOS + 1) * MOST_BYTES)
    try:
        _, address, _ = page.queue(max_size=20).launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=MOST_BYTES, theme=theme, css=CSS, footer_links=[], ssr_mode=False,
            app_kwargs={"middleware": [guard]}, enable_monitoring=False, mcp_server=False,
            inbrowser=False,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(
            explain(f"--host {host} --port {port}: {error}", "an address of this machine and a "
                    "free port", "choose others")
        ) from error  # fmt: skip
    return str(address)
