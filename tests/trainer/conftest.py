"""Shared by the tests that run real trainings."""

import os

import pytest

from tests.runs import tiny_generator_file


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """(generator file, folder for drawn faces), made once."""
    folder = tmp_path_factory.mktemp("assets")
    return tiny_generator_file(folder), folder / "cache"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """A run names its folder in the environment for its ranks; the next test starts without."""
    monkeypatch.delenv("GANINV_RUN_DIR", raising=False)
    yield
    os.environ.pop("GANINV_RUN_DIR", None)
