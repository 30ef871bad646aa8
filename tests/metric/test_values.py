"""Metrics against their definitions and against scikit-image."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from ganinv.core.errors import ConfigError
from ganinv.metric.distance import Distance
from ganinv.metric.distortion import Distortion
from ganinv.metric.fid import FID
from ganinv.metric.metric import Sample
from ganinv.metric.ms_ssim import MSSSIM, betas_of


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


def ms_ssim_by_hand(x, x_hat, betas):
    """Of one image, in float64: scipy's Gaussian, contrast where windows lie inside the image; at
    the last scale all of SSIM, with its mirrored border, as torchmetrics takes its mean."""

    def parts(a, b):
        def blur(image):
            return gaussian_filter(image, 1.5, radius=5, mode="mirror", axes=(1, 2))

        mean_a, mean_b = blur(a), blur(b)
        both, of_a, of_b = (blur(m) - n for m, n in ((a * b, mean_a * mean_b), (a * a, mean_a**2),
                                                     (b * b, mean_b**2)))  # fmt: skip
        c1, c2 = 0.02**2, 0.06**2
        contrast = (2 * both + c2) / (of_a + of_b + c2)
        light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        return contrast[:, 5:-5, 5:-5].mean(), (contrast * light).mean()

    value, (a, b) = 1.0, (image.double().numpy() for image in (x, x_hat))
    for number, beta in enumerate(betas, 1):
        contrast, whole = parts(a, b)
        value *= max(whole if number == len(betas) else contrast, 0.0) ** beta
        half = a.shape[1] // 2
        a, b = (
            m[:, : 2 * half, : 2 * half].reshape(3, half, 2, half, 2).mean((2, 4)) for m in (a, b)
        )
    return value


def test_ms_ssim_by_hand_and_torchmetrics():
    """Five scales from 176 px on are torchmetrics' own; 64 px have three."""
    five = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    three = tuple(beta / 0.6305 for beta in five[:3])
    for side, betas in ((176, five), (64, three)):
        x = images(2, side=side)
        x_hat = (x + 0.3 * images(2, seed=1, side=side)).clamp(-1, 1)
        values = MSSSIM()(Sample(x, x_hat))["ms_ssim"]
        for i in range(2):
            expected = ms_ssim_by_hand(x[i], x_hat[i], betas)
            assert values[i].item() == pytest.approx(expected, abs=1e-5)
        if side == 176:
            theirs = multiscale_structural_similarity_index_measure(x_hat, x, data_range=2.0)
            assert values.mean().item() == pytest.approx(theirs.item(), abs=1e-6)
    assert MSSSIM()(Sample(x, x))["ms_ssim"].tolist() == pytest.approx([1, 1])
    assert MSSSIM()(Sample(x, -x))["ms_ssim"].tolist() == [0, 0]  # and no NaN


def test_ms_ssim_has_as_many_scales_as_fit_and_says_so():
    scales = {
        11: 1,
        21: 1,
        22: 2,
        43: 2,
        44: 3,
        64: 3,
        98: 3,
        99: 4,
        160: 4,
        175: 4,
        176: 5,
        1024: 5,
    }
    for side, count in scales.items():
        betas = betas_of((side, side + 30))
        assert len(betas) == count and sum(betas) == pytest.approx(1, abs=1e-3), side
        if side < 200:
            x = images(1, side=side)
            assert MSSSIM()(Sample(x, x))["ms_ssim"].item() == pytest.approx(1), side
    told = MSSSIM().protocol_at((64, 64))["ms_ssim"]
    assert told.startswith(
        "the first 3 of 5 scales, for want of pixels, their exponents divided by"
    )
    assert told.endswith("range 2, 64 x 64 px")
    assert MSSSIM().protocol_at((256, 192))["ms_ssim"].startswith("5 scales; windows of 11 px")
    with pytest.raises(ConfigError, match="images of 10 x 40 px for MS-SSIM; expected at least 11"):
        betas_of((10, 40))
    assert Distortion().protocol_at((64, 32))["mse"] == "images in [-1,1], 64 x 32 px"
