"""Perceptual path length where it is known: of unit vectors, the angle between them, squared."""

import pytest
import torch
from torch import nn

from ganinv.core.interface import Inversion
from ganinv.core.seed import derive_seed, randn_rows
from ganinv.metric.metric import Sample
from ganinv.metric.path_length import PathLength
from tests.metric.fakes import Model

SEEDS = list(range(12))


class Squared(nn.Module):
    """The squared distance of colours."""

    def forward(self, x_hat, x):
        return (x_hat - x).mean((2, 3)).square().sum(1)


class LPIPS(Squared):
    def __init__(self):
        super().__init__()
        self.network = nn.Module()
        self.network.pnet_type = "vgg"


def metric(**settings):
    fixed = {"space": "w", "sampling": "end", "crop": "whole", "epsilon": 1e-4, "term": LPIPS()}
    return PathLength(**fixed | settings)


def rows(found, seeds=SEEDS, model=None, wp=None):
    image = torch.zeros(len(seeds), 3, 8, 8)
    codes = torch.zeros(len(seeds), 2, 3) if wp is None else wp
    sample = Sample(image, image, Inversion(codes), model=model or Model(), seeds=seeds)
    return found(sample)[found.column]


def ends():
    """w of both ends, as the metric draws them."""
    z = [randn_rows([derive_seed(s, "path length", end) for s in SEEDS], (3,), "cpu")
         for end in ("first", "second")]  # fmt: skip
    return [Model.G.mapping(part) for part in z]


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_in_w_it_is_the_squared_distance_of_the_ends(sampling):
    """G is linear, so that it is the same everywhere on the path."""
    first, second = ends()
    expected = (second - first).square().sum(1).double()
    torch.testing.assert_close(rows(metric(sampling=sampling)), expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_in_z_it_is_the_squared_angle_between_the_ends(sampling):
    first, second = ends()
    angle = (first * second).sum(1).clamp(-1, 1).acos().double()
    found = rows(metric(space="z", sampling=sampling))
    torch.testing.assert_close(found, angle.square(), rtol=0.02, atol=0.01)


def test_from_a_code_it_is_the_squared_distance_to_the_sample():
    wp = torch.randn(12, 2, 3)
    expected = (ends()[1] - wp[:, 0]).square().sum(1).double()
    torch.testing.assert_close(rows(metric(space="codes"), wp=wp), expected, rtol=0.02, atol=0.01)


def test_the_column_says_what_papers_differ_in():
    assert metric().column == "ppl_w_end_whole_vgg"
    found = metric(space="z", sampling="full", crop="face")
    assert found.column == "ppl_z_full_face_vgg" and found.higher_is_better == {found.column: False}
    assert found.protocol[found.column] == "LPIPS over vgg, epsilon 0.0001, percentiles 1 to 99"


def test_a_face_is_cropped_and_large_images_averaged():
    """Rows 3/8 to 7/8 and columns 2/8 to 6/8, then 512 px to 256."""
    seen = []

    class Shape(Squared):
        def forward(self, x_hat, x):
            seen.append(x)
            return super().forward(x_hat, x)

    class Big(Model):
        class G(Model.G.__class__):
            resolution = 512

        G = G()

        def render(self, found, size=None, noise="const", seeds=None):
            assert noise == "random" and len(seeds) == 2  # fresh, the same for both ends
            image = torch.arange(512.0).expand(2, 3, 512, 512)
            return image + torch.arange(512.0)[:, None] * 1000

    rows(metric(crop="face", term=Shape()), [0, 1], Big())
    assert seen[0].shape == (2, 3, 128, 128)
    assert seen[0][0, 0, 0, 0] == 192_000 + 128 + 500.5  # of a 2 x 2 cell at row 192, column 128
    rows(metric(term=Shape()), [0, 1], Big())
    assert seen[1].shape == (2, 3, 256, 256)


def test_pairs_are_the_images_own_and_the_ends_are_trimmed():
    found = metric()
    whole = rows(found)
    assert torch.cat([rows(found, SEEDS[:5]), rows(found, SEEDS[5:])]).equal(whole)
    row = torch.cat([torch.arange(100.0), torch.tensor([1e6])])
    values = {found.column: row}
    assert found.compute(values) == {found.column: 50}
    low, high = found.interval(values)[found.column]
    assert low < 50 < high
