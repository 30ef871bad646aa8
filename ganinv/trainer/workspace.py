"""A W&B workspace for runs of ganinv: losses, speed, grids and evaluations on one page.

Needs the package wandb-workspaces, the extra [workspace].
"""

from __future__ import annotations

from typing import Any

from ganinv.core.errors import ConfigError, RunError, explain
from ganinv.trainer.loggers import logged_in
from ganinv.trainer.tables import TABLE

CLOCK = "trainer/global_step"  # images seen
LOSSES = ("total", "l2", "perceptual", "lpips", "identity", "similarity", "adversarial")
NAME = "ganinv"


def build_workspace(entity: str, project: str) -> Any:
    """The workspace as an object of wandb-workspaces, not saved yet.

    Args:
        entity: W&B team or user.
        project: W&B project.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        import wandb_workspaces.reports.v2.interface as panels
        import wandb_workspaces.workspaces.interface as ws
    except ImportError as error:
        raise ConfigError(
            explain("ganinv workspace without the package wandb-workspaces", "the package",
                    "pip install wandb-workspaces")
        ) from error  # fmt: skip

    def line(title: str, *metrics: str) -> Any:
        return panels.LinePlot(title=title, x=CLOCK, y=list(metrics), title_x="images seen")

    losses = [line(name, f"train/{name}", f"val/{name}") for name in LOSSES]
    steps = [
        line("gradient norms", "train/grad_norm/E", "train/grad_norm/D", "train/grad_norm/G"),
        line("rates", "lr/E", "lr/D", "lr/G"),
        line("skipped steps", "train/skipped_steps"),
    ]
    speed = [
        line("images a second", "speed/images_per_sec"),
        line("waiting", "speed/data_wait_share", "speed/rank_wait_share"),
        line("GPU memory, GiB", "speed/gpu_memory_gib"),
        line("TFLOP/s of each device", "speed/tflops"),
        line("share of the device's peak", "speed/mfu"),
    ]
    grids = [panels.MediaBrowser(title="validation", media_keys=["val/grid"], num_columns=1)]
    tables = [panels.WeavePanelSummaryTable(table_name=TABLE)]
    sections = {"Losses": losses, "Grids": grids, "Steps": steps, "Speed": speed,
                "Evaluation": tables}  # fmt: skip
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[ws.Section(name=k, panels=v, is_open=True) for k, v in sections.items()],
        settings=ws.WorkspaceSettings(x_axis=CLOCK),
    )


def save_workspace(entity: str | None, project: str) -> str:
    """Save it to W&B; returns its address.

    Args:
        entity: W&B team or user, None for the user who is logged in.
        project: W&B project, which must be there.

    Raises:
        ConfigError: nobody is logged in, or the package is not installed.
        RunError: W&B did not take it.
    """
    if not logged_in():
        raise ConfigError(
            explain("ganinv workspace, and nobody is logged in to W&B", "a login",
                    "wandb login, or set WANDB_API_KEY")
        )  # fmt: skip
    import wandb

    try:
        workspace = build_workspace(entity or str(wandb.Api().default_entity), project)
        workspace.save()
    except ConfigError:
        raise
    except Exception as error:  # of a server, by whatever library asked it
        raise RunError(
            explain(f"W&B did not take the workspace: {error}", "a project of W&B",
                    "log one run to it first, and see that --entity and --project are right")
        ) from error  # fmt: skip
    return str(workspace.url)
