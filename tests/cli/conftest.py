"""Shared by the tests of commands that need a trained run."""

import os

import pytest

from tests.runs import overrides, run, tiny_generator_file


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(checkpoint of e4e stopped at stage 2, its generator's file): a run of sixteen images."""
    folder = tmp_path_factory.mktemp("trained")
    generator = tiny_generator_file(folder)
    try:
        run(
            [*overrides("e4e", generator, folder / "cache"), f"run_dir={folder / 'run'}"]
            + ["trainer.max_kimg=0.016"]
        )
    finally:
        os.environ.pop("GANINV_RUN_DIR", None)
    return folder / "run" / "checkpoints" / "last.ckpt", generator


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """A run names its folder in the environment for its ranks; the next test starts without."""
    monkeypatch.delenv("GANINV_RUN_DIR", raising=False)
    yield
    os.environ.pop("GANINV_RUN_DIR", None)
