"""`ganinv workspace`: a page in W&B for the runs of a project."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "workspace",
        help="make a W&B workspace: losses, grids, speed and evaluations of a project's runs",
        description="Adds a workspace named ganinv to a project of W&B; others stay as they are. "
        "Needs a login and the package wandb-workspaces.",
    )
    parser.add_argument("--project", default="ganinv", help="W&B project; default: ganinv")
    parser.add_argument("--entity", help="W&B team or user; default: whoever is logged in")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Save the workspace and print its address."""
    from ganinv.trainer.workspace import save_workspace

    print(save_workspace(args.entity, args.project))
    return 0
