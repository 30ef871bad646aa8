"""The `ganinv` command: finds its commands in this folder, reports what a user can get wrong.

A command is a module with `add_parser(subparsers)`, which adds its parser and sets the default
`run`, a function of the parsed arguments that returns the exit code. Such a module imports torch
and the like inside `run`, so that `ganinv --help` answers at once. What commands share is in
modules whose names begin with an underscore.

`ganinv train` and `ganinv evaluate` are train.py and evaluate.py of a checkout: Hydra reads their
words, so that their modules have a `main(words)` instead.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

import ganinv.cli
from ganinv import __version__
from ganinv.core.command import ENTRIES
from ganinv.core.errors import USER_ERRORS
from ganinv.run.disk import disk_errors

HELP = {
    "train": "train an encoder: GROUP=NAME and KEY=VALUE as for train.py",
    "evaluate": "measure an encoder: GROUP=NAME and KEY=VALUE as for evaluate.py",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="ganinv",
        description="Training, evaluation, and the tools around them.",
        epilog="`ganinv train --help` lists every group and choice, and `ganinv COMMAND --help` "
        "what a command takes.",
    )
    parser.add_argument("--version", action="version", version=f"ganinv {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in ENTRIES:
        subparsers.add_parser(name, help=HELP[name], add_help=False)
    for found in pkgutil.iter_modules(ganinv.cli.__path__):
        if found.name.startswith("_") or found.name in ENTRIES:
            continue
        module = importlib.import_module(f"ganinv.cli.{found.name}")
        if hasattr(module, "add_parser"):
            module.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 1 for an error of the user's, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in ENTRIES:
        importlib.import_module(f"ganinv.cli.{arguments[0]}").main(arguments[1:])
        return 0
    args = build_parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    try:
        with disk_errors(Path(), "make room, or make it readable and writable; then try again"):
            return int(args.run(args))
    except USER_ERRORS as error:
        print(f"ganinv: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nganinv: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
