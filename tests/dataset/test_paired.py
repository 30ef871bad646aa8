"""Sets that store an input beside each image: written, streamed, mirrored, checked, refused."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganinv.cli.main import main
from ganinv.core.errors import ConfigError, DataError
from ganinv.dataset import avatars
from ganinv.dataset.index import Reader, read_index
from ganinv.dataset.module import AvatarData, ShardData
from tests.dataset.sets import data_of

N = 12
HALVES = np.repeat([[0, 7]], 32, 0).repeat(16, 1).astype(np.uint8)  # label 0 left, label 7 right


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Images of grey i and, for each, an RGB image, a drawing and a map of classes."""
    made = {name: tmp_path / name for name in ("images", "rgb", "grey", "labels")}
    for name, folder in made.items():
        (folder / "sub").mkdir(parents=True)
        for i in range(N):
            path = folder / "sub" / f"im{i}.png"
            if name == "labels":
                Image.fromarray(HALVES).save(path)
            elif name == "grey":
                Image.new("L", (32, 32), 10 * i).save(path.with_suffix(".bmp"))
            else:
                colour = (i, i, i) if name == "images" else (i, 100, 200)
                Image.new("RGB", (32, 32), colour).save(path)
    return made


def written(folders: dict[str, Path], kind: str, *options: str) -> Path:
    out = folders["images"].parent / f"set-{kind}"
    command = ["shard", str(folders["images"]), "--source", str(folders[kind]), "--kind", kind]
    assert main([*command, "--out", str(out), "--size", "8", "--format", "png", *options]) == 0
    return out


def paired(root: Path, kind: Any, **options: Any) -> ShardData:
    return data_of(root, image_size=(8, 8), source=kind, **options)


def batches(data: ShardData, count: int) -> list[Any]:
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, lightning_module=SimpleNamespace(images_seen=0)
    )
    return list(islice(data.train_dataloader(), count))


@pytest.mark.parametrize("kind", ["rgb", "grey", "labels"])
def test_each_image_comes_with_its_source(kind: str, folders: dict[str, Path]) -> None:
    root = written(folders, kind, "--val", "3", "--test", "2")
    data = paired(root, kind)
    data.check(("train", "val", "test"))
    seen = batches(data, 3) + list(data.eval_dataloader("val"))
    for batch in seen:
        i = batch["image"][:, 0, 4, 4].tolist()
        source = batch["source"]
        assert source.dtype == torch.uint8
        assert source.shape[1:] == ((3, 8, 8) if kind == "rgb" else (1, 8, 8))
        if kind == "labels":
            assert source[:, 0, :, :4].unique().tolist() == [0]
            assert source[:, 0, :, 4:].unique().tolist() == [7]
        else:
            assert source[:, 0, 4, 4].tolist() == (i if kind == "rgb" else [10 * j for j in i])
    stored = read_index(root / "train").source
    assert stored is not None and stored.classes == (8 if kind == "labels" else 0)
    assert "source" not in batches(paired(root, None), 1)[0]  # not read where no task asks


def test_a_source_is_mirrored_with_its_image(folders: dict[str, Path]) -> None:
    for i in range(N):
        pixels = np.zeros((32, 32, 3), dtype=np.uint8)
        pixels[:, 16:] = 255
        Image.fromarray(pixels).save(folders["images"] / "sub" / f"im{i}.png")
    data = paired(written(folders, "labels"), "labels", hflip=True)
    mirrored = 0
    for batch in batches(data, 6):
        right = batch["image"][:, 0, 4, 6] > 128
        assert torch.equal(right, batch["source"][:, 0, 4, 6] == 7)
        mirrored += int((~right).sum())
    assert 3 < mirrored < 21


def test_no_label_is_invented(folders: dict[str, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(N):
        labels = rng.choice([0, 7, 13], (32, 32)).astype(np.uint8)
        palette = Image.fromarray(labels).convert("P")  # as CelebAMask-HQ's tools write them
        palette.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
        palette.save(folders["labels"] / "sub" / f"im{i}.png")
    root = written(folders, "labels")
    for batch in batches(paired(root, "labels"), 3):
        assert set(batch["source"].unique().tolist()) <= {0, 7, 13}


def test_what_shard_says(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(folders, "labels")
    said = capsys.readouterr().out
    assert "task=segmentation task.classes=8 encoder.input_nc=8" in said
    out = ["--out", str(tmp_path / "x"), "--size", "8"]
    assert main(["shard", str(folders["images"]), "--source", str(folders["rgb"]), *out]) == 1
    assert "--source or --kind alone" in capsys.readouterr().err
    (folders["rgb"] / "sub" / "im3.png").unlink()
    both = ["--source", str(folders["rgb"]), "--kind", "rgb"]
    assert main(["shard", str(folders["images"]), *both, *out]) == 1
    assert "sub/im3.png without one source of that name" in capsys.readouterr().err


def test_a_coloured_map_of_classes_is_not_taken(folders: dict[str, Path]) -> None:
    Image.new("RGB", (32, 32)).save(folders["labels"] / "sub" / "im5.png")
    index = read_index(written(folders, "labels") / "train")
    assert len(index) == N - 1
    ((name, reason),) = index.raw["failed"]
    assert name == "sub/im5.png" and "im5.png: a map of classes as a RGB image" in reason


def test_verify_finds_a_damaged_source(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = written(folders, "rgb")
    index = read_index(root / "train")
    offset = int(index.offsets[4, 4])
    with open(root / "train" / index.names[0], "r+b") as file:
        file.seek(offset + 20)
        file.write(b"\0" * 20)
    assert main(["verify", str(root)]) == 1
    assert "source.png" in capsys.readouterr().out
    data = paired(root, "rgb", max_bad_fraction=0.5)
    (first,) = [b for b in batches(data, 3) if "skipped" in b][:1]
    assert "source.png" in first["skipped"][0]


def test_refusals(folders: dict[str, Path], tmp_path: Path) -> None:
    root = written(folders, "labels")
    with pytest.raises(DataError, match=r"holds labels sources, and the task reads grey sources"):
        paired(root, "grey").check(["train"])
    with pytest.raises(DataError, match=r"labels up to 7; .*set task.classes=8"):
        paired(root, "labels", classes=5).check(["train"])
    plain = tmp_path / "plain"
    assert main(["shard", str(folders["images"]), "--out", str(plain), "--size", "8"]) == 0
    with pytest.raises(DataError, match=r"images alone.*--source FOLDER --kind labels"):
        paired(plain, "labels").check(["train"])


# ------------------------------------------------------------------ the built-in domain


def test_every_pixel_of_a_face_belongs_to_a_part() -> None:
    seen: set[str] = set()
    for seed in range(60):
        labels = avatars.labels(seed, 32)
        known = avatars.options(seed)[1]
        parts = {avatars.PARTS[i] for i in np.unique(labels)}
        assert {"background", "skin", "hair"} <= parts
        assert known["beard"] == ("beard" in parts)
        assert labels.dtype == np.uint8 and labels.shape == (32, 32)
        seen |= parts
    assert seen >= set(avatars.PARTS) - {"earrings", "freckles", "nose"}  # smaller than a pixel


def test_the_parts_lie_where_the_face_has_their_colours() -> None:
    for seed in (0, 3, 7, 21):
        image, known = avatars.draw(seed, 64)
        labels = avatars.labels(seed, 64)
        for part in ("background", "skin", "hair"):
            colour = np.array(known[f"{part}_rgb"]) * 255
            inside = image[labels == avatars.PARTS.index(part)].astype(float)
            assert np.abs(np.median(inside, 0) - colour).max() < 3


def test_avatars_with_their_parts(tmp_path: Path) -> None:
    options = {"num_train": 6, "num_val": 2, "num_test": 2, "image_size": (16, 16)}
    options |= {"generator_resolutions": [64], "batch_size": 3, "num_workers": 0, "seed": 0}
    options |= {
        "regions": {},
        "hflip": False,
        "window": 2,
        "max_bad_fraction": 0.0,
        "cache": str(tmp_path),
    }
    data = AvatarData(**options, source="labels", classes=13)  # type: ignore[arg-type]
    data.prepare_data()
    batch = next(iter(data.eval_dataloader("val")))
    seed = int(batch["key"][0])
    assert torch.equal(batch["source"][0, 0], torch.from_numpy(avatars.labels(seed, 16)))
    assert json.loads((data.root / "val" / "index.json").read_text())["source"]["kind"] == "labels"
    plain = AvatarData(**options)  # type: ignore[arg-type]
    assert plain.root != data.root
    with pytest.raises(ConfigError, match="reads grey sources with dataset=avatars64"):
        AvatarData(**options, source="grey")  # type: ignore[arg-type]
    reader = Reader(read_index(data.root / "train"), open_files=1)
    assert reader.source(0).shape == (1, 16, 16)
