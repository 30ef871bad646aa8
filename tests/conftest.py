"""Every test: no network, no files of this machine's user, its own random numbers."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runs import tiny_generator_file

ROOT = Path(__file__).parent
FIRST = (  # files that take long, so that no process is left alone with one at the end
    "trainer/test_faults_alone.py", "trainer/test_ddp.py", "trainer/test_faults.py",
    "slurm/test_slurm.py", "evaluation/test_ranks.py", "interop/test_graph.py",
    "method/test_curves.py", "encoder/test_golden.py", "trainer/test_precision.py",
    "run/test_run.py", "method/test_players.py", "config/test_stored.py",
    "interop/test_official.py", "cli/test_installed.py", "cli/test_invert_methods.py",
    "interop/test_hostile_models.py", "trainer/test_task.py",
)  # fmt: skip
FAST = (  # rooms and files of `pytest -m fast`, for the hand: within a minute, collection included
    "loss", "optimizer", "metric", "discriminator", "task", "editing",
    "core/test_op.py", "core/test_network.py", "core/test_command.py",
    "core/safe/test_npy.py", "core/safe/test_unpickle.py",
    "method/test_restyle.py", "method/test_bdinvert.py",
    "evaluation/test_report.py", "house/test_floors.py", "house/test_sizes.py",
)  # fmt: skip

if "OMP_NUM_THREADS" not in os.environ:
    beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))  # test processes on this machine
    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1) // beside))
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the fast ring; long files first."""
    place_of = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda i: place_of.get(i.path.relative_to(ROOT).as_posix(), len(FIRST)))
    for item in items:
        place = item.path.relative_to(ROOT)
        ours = any(place.is_relative_to(name) for name in FAST)
        if ours and not any(item.get_closest_marker(name) for name in ("slow", "ddp")):
            item.add_marker("fast")


@pytest.fixture(autouse=True, scope="session")
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches in a temporary folder, also for processes that tests start; W&B never logs in."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANINV_CACHE", str(folder / "ganinv"))
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_CACHE_DIR", str(folder / "wandb"))
        patch.setenv("WANDB_CONFIG_DIR", str(folder / "wandb"))
        patch.setenv("WANDB_DATA_DIR", str(folder / "wandb"))
        for name in ("GANINV_WEIGHTS", "GANINV_DATA", "GANINV_RUN_DIR", "WANDB_API_KEY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def own_randomness() -> Iterator[None]:
    """Each test begins with the same random state, and leaves the one it found."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


@pytest.fixture(autouse=True)
def warm_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an evaluation are forked from one that has imported everything, as `launch_ready`'s
    are; those of a command that a test types start from nothing."""
    monkeypatch.setattr("ganinv.evaluation.ranks.START", "forkserver")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave neither this machine nor, unseen, a test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = "" if self.family == socket.AF_UNIX else str(address[0])
        local = not host or host.startswith(("127.", "::1", "localhost"))
        assert local, f"a test reached for the network: {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """(generator file, folder for drawn faces), made once."""
    folder = tmp_path_factory.mktemp("assets")
    return tiny_generator_file(folder), folder / "cache"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 server (moto) on this machine, which has the empty bucket "faces"."""
    import boto3
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("no_proxy", "*")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="faces")
    yield client
    server.stop()


@pytest.fixture(autouse=True)
def own_run_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run names its folder in the environment for its ranks; the next test starts without."""
    monkeypatch.delenv("GANINV_RUN_DIR", raising=False)
    yield
    os.environ.pop("GANINV_RUN_DIR", None)
