"""Who started this process, as which rank of how many, and where the ranks find one another.

    script    python train.py, ganinv train: rank 0 starts the other ranks of its node itself
    torchrun  one agent a node starts the ranks (also inside Kubernetes or an sbatch script)
    srun      SLURM starts every rank

Rank 0 keeps a small key-value store, at the address that torch.distributed uses as well (under
torchrun it may be the agent's). Through it rank 0's decisions reach the other ranks before any
collective exists, and through it the ranks watch one another (`run/watchdog.py`). torch is imported
for that alone: a single process decides without it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from ganinv.core.command import entry
from ganinv.core.errors import USER_ERRORS, ConfigError, explain

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

DECISION = "GANINV_DECISION"  # what rank 0 decided, in the environment of the ranks it starts
PATIENCE = timedelta(hours=1)  # for rank 0, which may have gigabytes to fetch before it decides


@dataclass(frozen=True)
class RankInfo:
    """This process among the ranks.

    Attributes:
        launcher: script, torchrun or srun.
        rank: global rank.
        world_size: of an external launcher; 1 under script, where trainer.devices decides.
        local_rank: rank on this node.
        node: number of this node.
        nodes: how many there are.
        restarts: how often the launcher has started this job before.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    node: int
    nodes: int
    restarts: int

    @property
    def external(self) -> bool:
        """Whether another program started all ranks."""
        return self.launcher != "script"

    @property
    def per_node(self) -> int:
        """Ranks on each node."""
        return self.world_size // self.nodes

    @property
    def prefix(self) -> str:
        """Of the ranks' keys in their store, which may outlive them (torchrun's)."""
        return f"ganinv/{self.restarts}"

    @property
    def job(self) -> str:
        """A name that stays the same when the launcher starts this job again."""
        slurm, torchrun = os.environ.get("SLURM_JOB_ID"), os.environ.get("TORCHELASTIC_RUN_ID")
        if self.launcher == "torchrun" and torchrun != "none":
            return f"torchrun-{torchrun}"
        if slurm is not None:
            return f"slurm-{slurm}"
        agent = os.getppid() if self.external else os.getpid()
        return f"{self.launcher}-{platform.node()}-{agent}"


def rank_info() -> RankInfo:
    """Read it from the environment that the launchers set."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        world, local = int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
        return RankInfo(
            launcher="torchrun",
            rank=int(env["RANK"]),
            world_size=world,
            local_rank=int(env["LOCAL_RANK"]),
            node=int(env["GROUP_RANK"]),
            nodes=max(1, world // local),
            restarts=int(env["TORCHELASTIC_RESTART_COUNT"]),
        )
    if "SLURM_STEP_ID" in env and "SLURM_PROCID" in env:
        return RankInfo(
            launcher="srun",
            rank=int(env["SLURM_PROCID"]),
            world_size=int(env["SLURM_NTASKS"]),
            local_rank=int(env["SLURM_LOCALID"]),
            node=int(env["SLURM_NODEID"]),
            nodes=int(env["SLURM_NNODES"]),
            restarts=int(env.get("SLURM_RESTART_COUNT", 0)),
        )
    rank = int(env.get("LOCAL_RANK", 0)) if DECISION in env else 0
    restarts = int(env.get("SLURM_RESTART_COUNT", 0))
    return RankInfo("script", rank, 1, rank, 0, 1, restarts)


def resolve_size(
    here: RankInfo, devices: int | str | None, num_nodes: int | None
) -> tuple[int | str, int]:
    """Devices a node and nodes; null means as many as the launcher started.

    Raises:
        ConfigError: null without a launcher, several nodes without one, or numbers that contradict
            it.
    """
    if not here.external:
        if devices is None or num_nodes is None or num_nodes > 1:
            raise ConfigError(
                explain(
                    f"trainer.num_nodes={num_nodes} and trainer.devices={devices} started by "
                    f"`{entry('train')}`, which starts the ranks of one node only",
                    "torchrun or srun, which start the ranks of all nodes",
                    "see docs/CLUSTER.md, or use trainer=ddp on this node",
                )
            )
        return devices, num_nodes
    given = {"devices": (devices, here.per_node), "num_nodes": (num_nodes, here.nodes)}
    for name, (asked, started) in given.items():
        if asked not in (None, "auto", -1, "-1", started, str(started)):
            raise ConfigError(
                explain(
                    f"trainer.{name}={asked}, but {here.launcher} started {started}",
                    "the launcher's number",
                    f"leave it to the launcher: trainer=ddp_multinode, or trainer.{name}={started}",
                )
            )
    return here.per_node, here.nodes


def _address(here: RankInfo) -> tuple[str, int]:
    """Where rank 0's store is. SLURM names nodes, not ports: the port follows from the job."""
    env = os.environ
    if here.launcher == "srun":
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        nodes = env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]
        env.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
        number = 31 * int(env["SLURM_JOB_ID"]) + int(env["SLURM_STEP_ID"])
        env.setdefault("MASTER_PORT", str(15_000 + number % 10_000))
    return env["MASTER_ADDR"], int(env["MASTER_PORT"])


@cache
def store() -> Store:
    """The ranks' store; rank 0 opens it, the others wait until it is there."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    here = rank_info()
    limit = timedelta(minutes=10)
    if not here.external and here.rank == 0:
        kept = TCPStore("127.0.0.1", 0, is_master=True, multi_tenant=True, timeout=limit)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(kept.port)
        return PrefixStore(here.prefix, kept)
    host, port = _address(here)
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    kept = TCPStore(
        host,
        port,
        is_master=here.rank == 0 and not agent,
        multi_tenant=True,
        wait_for_workers=False,
        timeout=limit,
    )
    return PrefixStore(here.prefix, kept)


def another_connection(patience: timedelta) -> Store:
    """The store over a connection of its own, for a thread beside the main one."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    store()
    here = rank_info()
    kept = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=patience,
    )
    return PrefixStore(here.prefix, kept)


def agree(decide: Callable[[], dict[str, Any]], about: str = "decision") -> dict[str, Any]:
    """Rank 0 decides, every rank gets the decision: plain values, JSON.

    Args:
        decide: called on rank 0.
        about: what is decided; each is decided once.

    Raises:
        ConfigError: on the other ranks, when rank 0 refused.
    """
    here, kept = rank_info(), f"GANINV_{about.upper()}"
    if not here.external:
        if here.rank == 0:
            os.environ[kept] = json.dumps(decide())
        return json.loads(os.environ[kept])
    if here.world_size == 1:
        return decide()
    if here.rank > 0:
        store().wait([about], PATIENCE)
        decision = json.loads(store().get(about))
        if "refused" in decision:
            raise ConfigError(f"rank 0 refused the run: {decision['refused']}")
        return decision
    try:
        decision = decide()
    except USER_ERRORS as error:
        store().set(about, json.dumps({"refused": str(error)}))
        raise
    store().set(about, json.dumps(decision))
    return decision
