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


def images(count, seed=0, side=24):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_distortion_is_a_number_an_image():
    x = images(3)
    x_hat = (x + 0.2 * images(3, seed=1)).clamp(-1, 1)
    x_hat[2] = x[2]
    values = Distortion()(x_hat, x)
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
        Distortion()(images(1, side=8), images(1, side=8))


class Mean(nn.Module):
    def features(self, image):
        return torch.cat([image.mean((2, 3)), image.square().mean((2, 3))], 1)


def test_fid_is_the_distance_of_the_two_gaussians():
    """Against the definition, with the matrix root by eigenvalues, in float64."""
    x, x_hat = images(40), images(40, seed=1) * 0.7
    fid = FID(column="fid", backbone=Mean())
    for part in range(0, 40, 16):
        assert fid(x_hat[part : part + 16], x[part : part + 16]) == {}
    a, b = Mean().features(x).double(), Mean().features(x_hat).double()
    root = torch.linalg.eigvals(torch.cov(a.T) @ torch.cov(b.T)).sqrt().real.sum()
    expected = (a.mean(0) - b.mean(0)).square().sum()
    expected += torch.cov(a.T).trace() + torch.cov(b.T).trace() - 2 * root
    assert fid.compute()["fid"] == pytest.approx(expected.item(), rel=1e-4)
    assert math.isnan(fid.compute()["fid"])  # nothing taken in since
    for _ in range(2):
        fid(x, x)
        assert fid.compute()["fid"] == pytest.approx(0, abs=1e-5)


def test_a_distance_measures_with_any_term_and_has_no_weight():
    class L1(nn.Module):
        def forward(self, x_hat, x):
            return (x_hat - x).abs().mean((1, 2, 3))

    metric = Distance(column="l1", term=L1())
    x, x_hat = images(2), images(2, seed=1)
    assert metric.higher_is_better == {"l1": "lower"}
    torch.testing.assert_close(metric(x_hat, x)["l1"], (x_hat - x).abs().mean((1, 2, 3)))
