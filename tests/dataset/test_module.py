"""What the data modules refuse, and the drawn domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganinv.core.errors import ConfigError, DataError
from ganinv.dataset import avatars
from ganinv.dataset.avatars import Move
from ganinv.dataset.module import AvatarData
from ganinv.dataset.moved import MovedAvatarData
from tests.dataset.sets import data_of, grey_set


def settings(cache: Path) -> dict[str, Any]:
    return {
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


def faces(cache: Path, **changes: Any) -> AvatarData:
    return AvatarData(**(settings(cache) | changes))


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


def moved(cache: Path, **changes: Any) -> MovedAvatarData:
    values = {"num_train": 1, "num_val": 1, "num_test": 2, "shift": [0, 0], "angle": 0}
    return MovedAvatarData(**(settings(cache) | values | changes))


def test_moved_faces_are_the_drawings_moved(tmp_path: Path) -> None:
    """Eight px to the right are eight px, bit for bit; an angle is that of PIL's rotation, which
    turns counter-clockwise too, up to its interpolation. What comes in is background."""
    plain = pixels_of(faces(tmp_path, num_test=2))
    for shift in ([0, 8], [3, -8], [0, 0]):
        there = moved(tmp_path, shift=shift)
        down, right = shift
        rows, columns = slice(max(down, 0), 32), slice(max(right, 0), 32 + min(right, 0))
        was = slice(0, 32 - down), slice(max(-right, 0), 32 - max(right, 0))
        for face, still in zip(pixels_of(there), plain, strict=True):
            assert np.array_equal(face[rows, columns], still[was])
            if right == 8:
                background = still[0, 0].astype(int)
                assert np.abs(face[:4, :8].astype(int) - background).max() <= 1
    y, x = np.mgrid[:128, :128] - 63.5
    middle = x * x + y * y < 50**2
    image, known = avatars.draw(3, 128)
    turned, now = avatars.draw(3, 128, Move(angle=15))
    assert now["rotate_deg"] == pytest.approx(known["rotate_deg"] - 15)  # DiceBear's is clockwise
    off = {}
    for angle in (15, 0, -15):
        rotated = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BICUBIC))
        off[angle] = np.abs(rotated.astype(int) - turned)[middle].mean()
    assert off[15] < 0.4 * min(off[0], off[-15]), off


def test_moved_faces_have_folders_of_their_own_and_refusals(tmp_path: Path) -> None:
    roots = {faces(tmp_path, num_train=1, num_val=1, num_test=2).root}
    changes = [{"shift": [0, 8]}, {"shift": [8, 0]}, {"shift": [0, -8]}]
    changes += [{"angle": 15}, {"angle": -15}]
    roots |= {moved(tmp_path, **change).root for change in changes}
    assert len(roots) == 6
    with pytest.raises(
        ConfigError, match=r"dataset.shift=\[0, 32\]; expected \[down, right\] in px"
    ):
        moved(tmp_path, shift=[0, 32])
    with pytest.raises(
        ConfigError, match=r"dataset.shift=\[8\]; expected \[down, right\] in px, le"
    ):
        moved(tmp_path, shift=[8])


def pixels_of(data: AvatarData) -> list[np.ndarray]:
    data.prepare_data()
    (batch,) = data.eval_dataloader("test")
    return [image.permute(1, 2, 0).numpy() for image in batch["image"]]
