"""Installed, not cloned: the wheel in an environment of its own, used from an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from ganinv.run.status import read_state
from tests.house.tree import CONF, ROOT, tracked

BUILD = """
import os, sys, tarfile
from setuptools import build_meta
out = sys.argv[1]
name = build_meta.build_sdist(out)
with tarfile.open(os.path.join(out, name)) as archive:
    archive.extractall(out, filter="data")
os.chdir(os.path.join(out, name.removesuffix(".tar.gz")))
build_meta.build_wheel(out)
"""
FORKED = """
import os, sys
import ganinv.cli._fitting, ganinv.cli._measuring, ganinv.cli.evaluate, ganinv.cli.train
from ganinv.cli.main import main
script, folder = sys.argv[1:3]
for number, line in enumerate(sys.argv[3:]):
    if not (child := os.fork()):
        file = os.open(f"{folder}/{number}.txt", os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.argv = [script, *line.split()]
        sys.exit(main())
    os.waitpid(child, 0)
"""
SMALL = """dataset.num_train=16 dataset.num_val=4 dataset.num_test=4 dataset.batch_size=2
trainer=ddp trainer.accelerator=cpu trainer.devices=2 trainer.max_kimg=0.008 trainer.threads=1
logger=csv name=mine optimizer=mine"""


def told(command: list[str], folder: Path) -> str:
    """What a command says that succeeds in `folder`, where nothing of the checkout is seen."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GANINV_RUN"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env=kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, and that from the files under version control."""
    sources, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("out")
    for path in tracked():
        copy = sources / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    told([sys.executable, "-c", BUILD, str(out)], sources)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds everything else where these tests do."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # not its .pth files
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    install += ["--no-index", "--no-compile", "--disable-pip-version-check"]
    told([sys.executable, *install, str(wheel)], folder)
    return python


def test_the_wheel_has_every_config_and_the_weights_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {path.relative_to(ROOT).as_posix() for path in tracked()}
    configs = {f"ganinv/{name}" for name in ours if name.startswith("conf/")}
    package = {name for name in ours if name.startswith("ganinv/")}
    assert configs | package == {name for name in names if ".dist-info/" not in name}
    assert "ganinv/generator/weights/stylegan2_avatars64.safetensors" in names


def test_an_installed_package_trains_and_evaluates_from_an_empty_folder(python, tmp_path):
    """Two ranks, one of which the command starts; a group of the user's own."""
    own = tmp_path / "own"
    (own / "optimizer").mkdir(parents=True)
    (own / "optimizer" / "mine.yaml").write_text("defaults: [adam]\nlr: 3.0e-4\n")
    place = tmp_path / "empty"
    place.mkdir()
    ganinv = str(python.with_name("ganinv"))
    words = [*SMALL.split(), f"--config-dir={own}"]
    said = told([ganinv, "train", *words], place)
    (folder,) = (place / "runs").iterdir()
    assert folder.name.endswith("-mine") and (folder / "finished").is_file(), said
    assert "lr: 0.0003" in (folder / "config.yaml").read_text()
    assert (folder / "logs" / "rank1.log").is_file()
    (following,) = re.findall(r"^Next: +ganinv (evaluate checkpoint=runs/\S+)$", said, re.M)
    lines = [
        "doctor",
        "train --cfg job experiment=e4e_ffhq1024",
        f"{following} limit=2 pictures=1 metric=[distortion]",
        f"train {' '.join(words)} resume=auto run_dir={folder} trainer.devices=1 "
        "trainer.max_kimg=0.01",
        f"train resume={folder}/checkpoints/gone.ckpt",
        "runs",
    ]
    told([str(python), "-c", FORKED, ganinv, str(tmp_path), *lines], place)
    doctor, config, table, again, refused, runs = (
        (tmp_path / f"{number}.txt").read_text() for number in range(len(lines))
    )
    assert re.search(r"stylegan2_avatars64 .*found: ", doctor), doctor
    assert len(re.findall(r"\.pkl|\.pt", doctor)) > 3 and str(python.parents[1]) in doctor
    assert "ganinv.method.e4e.E4E" in config
    assert "psnr" in table and list(folder.glob("evaluation/*/report.html")), table
    assert "evaluate.py" not in said + again and "train.py" not in said + again
    assert not (place / "conf").exists() and CONF.parent == ROOT
    assert f"continuing {folder}" in again and "Done: 0.01 kimg" in again
    assert refused.startswith("\nWeightsMissing: resume=") and "mine   finished" in runs
    assert shlex.split(read_state(folder)["command"])[:2] == ["ganinv", "train"]
