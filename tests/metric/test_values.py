"""Metrics against their definitions and against scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from ganinv.core.errors import ConfigError
from ganinv.metric.distance import Distance
from ganinv.metric.distortion import Distortion
from ganinv.metric.fid import FID
from ganinv.metric.metric import Sample


def images(count, seed=0, side=24):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_distortion_is_a_number_an_image():
    x = images(3)
    x_hat = (x + 0.2 * images(3, seed=1)).clamp(-1, 1)
    x_hat[2] = x[2]
    values = Distortion()(Sample(x, x_hat))
    for i in range(2):
        a, b = x[i].double().numpy(), x_hat[i].double().numpy()
        mse = np.mean((a - b) ** 2)
        assert values["mse"][i].item() == pytest.approx(mse, rel=1e-5)
        assert values["psnr"][i].item() == pytest.approx(10 * math.log10(4 / mse), rel=1e-5)
        expected = structural_similarity(
            a,
            b,
            channel_axis=0,
            data_range=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert values["ssim"][i].item() == pytest.approx(expected, abs=1e-5)
    assert values["mse"][2] == 0 and math.isinf(values["psnr"][2])
    assert values["ssim"][2].item() == pytest.approx(1)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ConfigError, match=r"8 x 8 px for SSIM; expected at least 11 px"):
        Distortion()(Sample(images(1, side=8), images(1, side=8)))


def joined(parts):
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Mean(nn.Module):
    def features(self, image):
        return torch.cat([image.mean((2, 3)), image.square().mean((2, 3))], 1)


def test_fid_is_the_distance_of_the_two_gaussians():
    """Against the definition, with the matrix root by eigenvalues, in float64."""
    x, x_hat = images(40), images(40, seed=1) * 0.7
    fid = FID(column="fid", backbone=Mean())
    parts = [Sample(x[i : i + 16], x_hat[i : i + 16]) for i in range(0, 40, 16)]
    rows = joined([fid(part) for part in parts])
    a, b = Mean().features(x).double(), Mean().features(x_hat).double()
    root = torch.linalg.eigvals(torch.cov(a.T) @ torch.cov(b.T)).sqrt().real.sum()
    expected = (a.mean(0) - b.mean(0)).square().sum()
    expected += torch.cov(a.T).trace() + torch.cov(b.T).trace() - 2 * root
    assert fid.compute(rows)["fid"] == pytest.approx(expected.item(), rel=1e-4)
    one = {name: value[:1] for name, value in rows.items()}
    assert math.isnan(fid.compute(one)["fid"])
    for _ in range(2):  # it keeps nothing
        assert fid.compute(fid(Sample(x, x)))["fid"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("metric", [FID(column="fid", backbone=Mean()), Distortion()])
def test_numbers_are_those_of_the_joined_rows_however_they_were_cut(metric):
    x, x_hat = images(12), images(12, seed=1)
    whole = metric.compute(metric(Sample(x, x_hat)))
    for cut in (1, 5, 11):
        parts = [metric(Sample(x[:cut], x_hat[:cut])), metric(Sample(x[cut:], x_hat[cut:]))]
        assert metric.compute(joined(parts)) == pytest.approx(whole, rel=1e-6)
    assert set(whole) == set(metric.higher_is_better)
    assert all(isinstance(better, bool) for better in metric.higher_is_better.values())


def test_a_distance_measures_with_any_term_and_has_no_weight():
    class L1(nn.Module):
        def forward(self, x_hat, x):
            return (x_hat - x).abs().mean((1, 2, 3))

    metric = Distance(column="l1", term=L1())
    x, x_hat = images(2), images(2, seed=1)
    assert metric.higher_is_better == {"l1": False}
    torch.testing.assert_close(metric(Sample(x, x_hat))["l1"], (x_hat - x).abs().mean((1, 2, 3)))


def test_a_column_names_its_protocol():
    """The peak of PSNR, and the network of a distance, by which papers differ."""

    class LPIPS(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Module()
            self.network.pnet_type = "vgg"

    class Looks(nn.Module):
        backbone = Mean()

    assert Distortion().protocol["psnr"] == "dB of the peak 2 of [-1,1]"
    assert Distance(column="lpips", term=LPIPS()).protocol == {"lpips": "LPIPS over vgg"}
    assert Distance(column="d", term=Looks()).protocol == {"d": "Looks over Mean"}
    assert Distance(column="d", term=nn.Identity()).protocol == {"d": "Identity"}
