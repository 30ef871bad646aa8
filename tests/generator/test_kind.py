"""Which family a generator is of, and what a config refuses by it."""

from pathlib import Path

import pytest
import torch

from ganinv.core.errors import ConfigError, WeightsError
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import load_generator
from ganinv.generator.kind import ARCHITECTURES, kind_of, random_generator


@pytest.mark.parametrize(
    ("kind", "resolution", "num_ws", "millions"),
    [
        ("stylegan", 1024, 18, 26.2),
        ("stylegan_layerwise", 256, 14, 29.5),  # the released generators of IDInvert
        ("stylegan2", 1024, 18, 30.4),  # pSp's and e4e's
        ("stylegan2", 256, 14, 30.0),
        ("stylegan3_t", 1024, 16, None),
        ("stylegan3_r", 1024, 16, None),
    ],
)
def test_published_sizes(kind: str, resolution: int, num_ws: int, millions: float | None) -> None:
    with torch.device("meta"):
        generator = random_generator(kind, resolution)
    assert kind_of(generator) == kind and generator.num_ws == num_ws
    assert not generator.training and not any(p.requires_grad for p in generator.parameters())
    count = sum(p.numel() for p in generator.parameters()) / 1e6
    if millions is not None:
        assert round(count, 1) == millions


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_bundle(path, random_generator("stylegan", 8), {})
    options = {"weights": str(path), "resolution": 8, "origin": None}
    assert load_generator(kind="stylegan", **options).num_ws == 4  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"of kind stylegan; expected one of kind stylegan2 "):
        load_generator(kind="stylegan2", **options)  # type: ignore[arg-type]


def test_nothing_to_draw_from() -> None:
    with pytest.raises(ConfigError, match=r"generator.kind=None and generator.resolution=64"):
        random_generator(None, 64)
    assert set(ARCHITECTURES) >= {"stylegan", "stylegan2", "stylegan3_t"}
