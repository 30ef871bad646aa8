"""What the data modules refuse, and the drawn domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganinv.core.errors import ConfigError, DataError
from ganinv.dataset import avatars
from ganinv.dataset.module import AvatarData
from tests.dataset.sets import data_of, grey_set


def faces(cache: Path, **changes: Any) -> AvatarData:
    values: dict[str, Any] = {
        "cache": str(cache),
        "num_train": 12,
        "num_val": 5,
        "num_test": 4,
        "image_size": [32, 32],
        "generator_resolutions": [32],
        "batch_size": 4,
        "num_workers": 0,
        "seed": 0,
        "hflip": False,
        "window": 8,
        "max_bad_fraction": 0.0,
        "regions": {"face": None},
    }
    return AvatarData(**(values | changes))


def test_a_face_is_a_function_of_its_seed() -> None:
    first, known = avatars.draw(7, 32)
    again, same = avatars.draw(7, 32)
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and known == same
    assert not np.array_equal(first, avatars.draw(8, 32)[0])


def test_attributes_are_what_is_drawn() -> None:
    drawn = [avatars.draw(seed, 64) for seed in range(60)]
    for image, known in drawn:
        corner = image[1, 1] / 255  # background
        assert np.abs(corner - known["background_rgb"]).max() < 0.02
    for name, low, high in (("glasses", 0.1, 0.5), ("beard", 0.1, 0.4), ("smile", 0.2, 0.8)):
        assert low < np.mean([known[name] for _, known in drawn]) < high
    assert all((known["glasses_variant"] is not None) == known["glasses"] for _, known in drawn)
    assert len({known["hair_variant"] for _, known in drawn}) > 15


def test_faces_are_drawn_once_in_disjoint_splits(tmp_path: Path) -> None:
    data = faces(tmp_path)
    data.prepare_data()
    seeds = []
    for split, count in (("train", 12), ("val", 5), ("test", 4)):
        index = data.open(split)
        assert len(index) == count
        seeds.append({batch_seed for batch_seed in _seeds(data, split)})
    assert len(set.union(*seeds)) == 21
    written = (data.root / "train" / "000000.tar").stat().st_mtime_ns
    faces(tmp_path).prepare_data()
    assert (data.root / "train" / "000000.tar").stat().st_mtime_ns == written
    assert faces(tmp_path, num_train=13).root != data.root
    assert faces(tmp_path, seed=1, batch_size=2).root == data.root


def _seeds(data: AvatarData, split: str) -> list[int]:
    from ganinv.dataset.index import Reader

    index = data.open(split)
    reader = Reader(index, open_files=2)
    return [reader.json(i)["seed"] for i in range(len(index))]


def test_test_batches_carry_attributes_of_the_very_image(tmp_path: Path) -> None:
    data = faces(tmp_path)
    data.prepare_data()
    batch = next(iter(data.test_dataloader()))
    assert batch["key"][2] == "20000002"
    image, known = avatars.draw(20_000_002, 32)
    assert np.array_equal(batch["image"][2].permute(1, 2, 0).numpy(), image)
    assert batch["attributes"][2] == known


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(DataError, match=r"no permission to write .*GANINV_CACHE"):
        faces(tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 0}, "dataset.batch_size=0; expected a whole number of at least 1"),
        ({"num_workers": -1}, "dataset.num_workers=-1; expected"),
        ({"window": 0}, "dataset.window=0; expected"),
        ({"image_size": [64]}, r"dataset.image_size=\[64\]; expected \[height, width\] in px"),
        ({"regions": {"face": [0, 9, 0, 99]}}, r"dataset.regions.face=\[0, 9, 0, 99\]; expected"),
        ({"max_bad_fraction": 1.0}, r"dataset.max_bad_fraction=1.0; expected a share in \[0, 1\)"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        data_of(tmp_path, **change)


def test_avatar_values_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset.num_val=0; expected 1 to 10,000,000 faces"):
        faces(tmp_path, num_val=0)
    with pytest.raises(ConfigError, match=r"image_size=\[32, 64\]; expected a square"):
        faces(tmp_path, image_size=[32, 64])


def test_the_data_are_checked_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*train; expected a set of shards"):
        data_of(tmp_path).check()
    for split in ("train", "val", "test"):
        grey_set(tmp_path / split, [4, 3])
    data_of(tmp_path).check()
    with pytest.raises(DataError) as caught:
        data_of(tmp_path, image_size=[64, 64]).check()
    assert "holds images of 6 x 8 px (height x width); expected 64 x 64 px" in str(caught.value)
    assert "ganinv shard SOURCE --out OUT --size 64x64" in str(caught.value)
    tar = tmp_path / "val" / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"000001.tar: truncated: 1,000 bytes instead of"):
        data_of(tmp_path).check()
    data_of(tmp_path).check(["train", "test"])
    (tmp_path / "test" / "index.json").unlink()
    with pytest.raises(DataError, match=r"test has no index\.json"):
        data_of(tmp_path).test_dataloader()
