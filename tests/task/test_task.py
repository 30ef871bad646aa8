"""What encoders read: each task's maths, its refusals, and where its chances come from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Picture

from ganinv.core.errors import ConfigError, DataError
from ganinv.task.frontalisation import Frontalisation
from ganinv.task.image import Image
from ganinv.task.paired import Segmentation, Sketch, Translation
from ganinv.task.super_resolution import SuperResolution, kernel, smaller


def images(n: int = 6, side: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_inversion_reads_the_image_itself() -> None:
    x = images()
    assert Image()(x, None, range(6), True) is x
    pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert Image().read(pixels).flatten().tolist() == [-1, 1]


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_smaller_is_pil_s_antialiased_bicubic_away_from_the_border(factor: int) -> None:
    x = images(1)
    small = smaller(x, factor)[0, 0].numpy()
    side = 64 // factor
    pil = Picture.fromarray(x[0, 0].numpy()).resize((side, side), Picture.Resampling.BICUBIC)
    inner = slice(2, -2)
    np.testing.assert_allclose(small[inner, inner], np.asarray(pil)[inner, inner], atol=2e-5)
    assert kernel(factor).sum().item() == pytest.approx(1)
    assert kernel(factor).shape == (4 * factor,)


def test_a_flat_image_stays_flat_to_the_border() -> None:
    x = torch.full((1, 3, 64, 48), 0.25)
    torch.testing.assert_close(smaller(x, 8), torch.full((1, 3, 8, 6), 0.25))


def test_each_image_has_the_factor_of_its_seed() -> None:
    task, x = SuperResolution(factors=[1, 4, 16]), images()
    s = task(x, None, range(6), True)
    again = torch.cat([task(x[i : i + 1], None, [i], False) for i in range(6)])
    torch.testing.assert_close(s, again)  # in any batch, in training or not
    kinds = []
    for i in range(6):
        same = [
            torch.allclose(
                s[i],
                F.interpolate(smaller(x[i : i + 1], f).clamp(-1, 1), (64, 64), mode="bilinear")[0],
                atol=1e-6,
            )
            for f in (1, 4, 16)
        ]
        assert sum(same) == 1
        kinds.append(same.index(True))
    assert len(set(kinds)) == 3
    assert not torch.equal(task(x, None, range(100, 106), True), s)


def test_factors_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"task.factors=\[0\]; expected whole numbers"):
        SuperResolution(factors=[0])
    with pytest.raises(ConfigError, match=r"\[3\] with images of 64 x 64 px"):
        SuperResolution(factors=[3])(images(), None, range(6), True)
    with pytest.raises(ConfigError, match=r"leave the larger factors out"):
        SuperResolution(factors=[64])(images(), None, range(6), True)


def test_frontalisation_mirrors_half_of_the_inputs_and_none_of_the_tests() -> None:
    x = images(64, 8)
    s = Frontalisation()(x, None, range(64), True)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(s, x, strict=True)]
    straight = [torch.equal(a, b) for a, b in zip(s, x, strict=True)]
    assert all(m != t for m, t in zip(mirrored, straight, strict=True))
    assert 20 < sum(mirrored) < 44
    assert Frontalisation()(x, None, range(64), False) is x


def test_stored_sources() -> None:
    grey = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(Sketch().read(grey), torch.tensor([[[[0.0, 0.2, 1.0]]]]))
    assert Sketch().picture(Sketch().read(grey)).shape == (1, 3, 1, 3)
    rgb = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert Translation()(images(2, 4), rgb, range(2), True).min() >= -1
    assert (Sketch.reads, Translation.reads, Segmentation.reads) == ("grey", "rgb", "labels")


def test_label_maps_become_one_hot() -> None:
    task = Segmentation(classes=3)
    labels = torch.tensor([[[[0, 2], [1, 1]]]], dtype=torch.uint8)
    s = task(images(1, 2), labels, [0], True)
    assert s.shape == (1, 3, 2, 2) and s.dtype == torch.float32
    assert s.argmax(1).tolist() == [[[0, 2], [1, 1]]] and s.sum(1).unique().tolist() == [1]
    assert task.picture(s).shape == (1, 3, 2, 2)
    with pytest.raises(DataError, match=r"label 2; expected labels 0 to 1 .*raise task.classes"):
        Segmentation(classes=2).read(labels)
    with pytest.raises(ConfigError, match="task.classes=1; expected 2 to 256"):
        Segmentation(classes=1)
