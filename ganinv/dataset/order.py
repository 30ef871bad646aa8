"""Which image comes when: a pure function of (seed, images seen).

Position p counts the images that all ranks together have drawn before it. Epoch e = p // n permutes
the shards by (seed, e), then the images inside each window of `window` successive shards, so that a
node reads a few tars at a time. Rank r of N takes the positions start + r + N j. Nothing is
remembered: a run that is killed anywhere goes on with exactly the images it had not drawn, with any
number of workers and ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ganinv.core.errors import ConfigError, explain
from ganinv.core.seed import derive_seed


def permutation(n: int, *key: int | str) -> np.ndarray:
    """A permutation of n as a function of the key alone.

    Sorts raw generator output: numpy may change `Generator.permutation` between versions.
    """
    return np.argsort(np.random.PCG64(derive_seed(*key)).random_raw(n), kind="stable")


class Order:
    """position -> sample number. Keeps one epoch's permutation.

    Args:
        starts: int64 [shards + 1], first sample of each shard, and the end.
        seed: of the permutations.
        window: shards whose images are shuffled together.
    """

    def __init__(self, starts: np.ndarray, seed: int, window: int) -> None:
        self.starts, self.seed, self.window = starts, seed, window
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Samples in an epoch."""
        return int(self.starts[-1])

    def epoch(self, epoch: int) -> np.ndarray:
        """The order of one epoch, int64 [n]."""
        if epoch != self._epoch:
            shards = permutation(len(self.starts) - 1, self.seed, "shards", epoch)
            parts = []
            for first in range(0, len(shards), self.window):
                inside = [
                    np.arange(self.starts[shard], self.starts[shard + 1])
                    for shard in shards[first : first + self.window]
                ]
                samples = np.concatenate(inside)
                parts.append(samples[permutation(len(samples), self.seed, "window", epoch, first)])
            self._epoch, self._order = epoch, np.concatenate(parts)
        return self._order

    def __call__(self, position: int) -> int:
        """The sample at a position of the endless stream."""
        epoch, place = divmod(position, len(self))
        return int(self.epoch(epoch)[place])


class Positions(Sampler[list[int]]):
    """Endless batches of one rank's positions.

    Args:
        start: images already drawn by all ranks.
        batch_size: images a rank draws each step.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, *, start: int, batch_size: int, rank: int, world_size: int) -> None:
        self.start, self.batch_size = start, batch_size
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        """start + rank + world_size * (0, 1, 2, ...), batch_size at a time."""
        position = self.start + self.rank
        while True:
            yield [position + self.world_size * j for j in range(self.batch_size)]
            position += self.world_size * self.batch_size


def eval_batches(samples: int, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """Batches of this rank's part of a finite set: over all ranks each sample comes once; the last
    batch of a rank may be smaller.

    Raises:
        ConfigError: fewer samples than ranks; one without any would leave the others waiting.
    """
    if samples < world_size:
        raise ConfigError(
            explain(
                f"{samples} images to validate on for {world_size} processes",
                "at least one image for each process",
                "use a larger set (dataset.num_val of those that are drawn) or fewer processes",
            )
        )
    mine = list(range(rank, samples, world_size))
    return [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
