"""What Lightning wants to know of the launcher, from `run/launch.py`."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

from ganinv.run.launch import rank_info, store


class Launched(ClusterEnvironment):
    """What Lightning asks about the launcher, answered from `rank_info()`.

    Lightning's own SLURM environment would requeue jobs by itself and insist on how srun was
    called.
    """

    def __init__(self) -> None:
        self.info, self._size = rank_info(), rank_info().world_size

    @property
    def creates_processes_externally(self) -> bool:
        """Whether Lightning must start nothing."""
        return self.info.external or self.info.rank > 0

    @property
    def main_address(self) -> str:
        """Host of rank 0."""
        store()
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """Port of rank 0."""
        store()
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        """Given to Lightning, never searched for."""
        return True

    def world_size(self) -> int:
        """Number of ranks."""
        return self._size

    def set_world_size(self, size: int) -> None:
        """Set by Lightning where train.py starts the ranks itself; else known from the launcher."""
        self._size = size

    def global_rank(self) -> int:
        """The global rank of this process."""
        return self.info.rank

    def set_global_rank(self, rank: int) -> None:
        """Nothing to do: `rank_info()` has it."""

    def local_rank(self) -> int:
        """The rank of this process on its node."""
        return self.info.local_rank

    def node_rank(self) -> int:
        """The number of this node."""
        return self.info.node
