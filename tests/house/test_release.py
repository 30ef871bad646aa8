"""What a release says of itself agrees: its version, and the Pythons it is for."""

from __future__ import annotations

import re
import tomllib

import yaml

from ganinv import __version__
from tests.house.tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == __version__


def test_every_python_that_is_promised_has_a_row_in_ci_versions() -> None:
    promised = re.findall(r"Python :: (\d\.\d+)", "\n".join(PROJECT["classifiers"]))
    rows = re.findall(r'^ +\[\w+\]="(\d\.\d+) ', (ROOT / ".ci/versions").read_text(), re.M)
    assert sorted(promised) == sorted(rows) == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_constraints_lie_within_what_is_asked_for() -> None:
    """The least that pyproject.toml takes is not above what CI installs."""
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    asked = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    for text in asked:
        name = re.split(r"[<>=\[ ;]", text)[0]
        least = re.search(r">=([\d.]+)", text)
        if least and name in pinned:
            parts = [[int(n) for n in re.findall(r"\d+", v)] for v in (pinned[name], least[1])]
            assert parts[0] >= parts[1], text
