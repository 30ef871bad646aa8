"""The `ganinv` command: finds its commands in this folder, reports what a user can get wrong.

A command is a module with `add_parser(subparsers)`, which adds its parser and sets the default
`run`, a function of the parsed arguments that returns the exit code. Such a module imports torch
and the like inside `run`, so that `ganinv --help` answers at once. What commands share is in
modules whose names begin with an underscore.
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
from ganinv.core.errors import USER_ERRORS
from ganinv.run.disk import disk_errors


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="ganinv",
        description="Tools around training: data in, checks, weights and images out.",
        epilog="Training and evaluation: python train.py --help, python evaluate.py --help",
    )
    parser.add_argument("--version", action="version", version=f"ganinv {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for found in pkgutil.iter_modules(ganinv.cli.__path__):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"ganinv.cli.{found.name}")
        if hasattr(module, "add_parser"):
            module.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 1 for an error of the user's, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
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
