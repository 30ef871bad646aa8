"""How far the pixels are apart: MSE, PSNR and SSIM, from torchmetrics.

    MSE   mean over pixels and channels of (x_hat - x)^2, images in [-1,1]: 4 times that in [0,1]
    PSNR  10 log10(4 / MSE) in dB: the peak of images in [-1,1] is 2
    SSIM  Wang et al. 2004: Gaussian window of 11 px, sigma 1.5, K 0.01 and 0.03, mean over channels

SSIM averages over the windows that lie inside the image, as Wang's code and scikit-image do;
torchmetrics' own mean takes in a mirrored border. GANInverter's PSNR, 10 log10(2 / MSE), reads
3.01 dB lower than the one here.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from ganinv.core.errors import ConfigError, explain
from ganinv.metric.metric import Metric, Sample

PEAK = 2.0
WINDOW = 11


class Distortion(Metric):
    """Columns mse, psnr (dB; infinite for equal images) and ssim, a number an image."""

    protocol: ClassVar[dict[str, str]] = {  # type: ignore[misc]
        "mse": "images in [-1,1]",
        "psnr": "dB of the peak 2 of [-1,1]",
        "ssim": f"windows of {WINDOW} px inside the image, range 2",
    }

    def __init__(self) -> None:
        super().__init__({"mse": False, "psnr": True, "ssim": True})

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """column -> [B].

        Raises:
            ConfigError: images smaller than SSIM's window.
        """
        x, x_hat = sample.x, sample.x_hat
        if min(x.shape[-2:]) < WINDOW:
            raise ConfigError(
                explain(
                    f"images of {x.shape[-2]} x {x.shape[-1]} px for SSIM",
                    f"at least {WINDOW} px a side",
                    "leave the metric `distortion` out",
                )
            )
        psnr = peak_signal_noise_ratio(x_hat, x, data_range=PEAK, reduction="none", dim=(1, 2, 3))
        _, map_ = structural_similarity_index_measure(
            x_hat,
            x,
            data_range=PEAK,
            sigma=1.5,
            kernel_size=WINDOW,
            reduction="none",
            return_full_image=True,
        )
        edge = WINDOW // 2
        ssim = map_[..., edge:-edge, edge:-edge].mean((1, 2, 3))
        return {"mse": (x_hat - x).square().mean((1, 2, 3)), "psnr": psnr, "ssim": ssim}
