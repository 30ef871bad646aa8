"""MS-SSIM: how alike structures are at several scales, from torchmetrics.

Source: Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality
assessment", 2003.

    MS-SSIM = prod_{j<M} max(c_j, 0)^b_j  max(s_M, 0)^b_M      M = 5 scales, each half of the last
    c_j  the contrast part of SSIM, s_M all of it, means over the image; Gaussian window of 11 px,
         sigma 1.5, K 0.01 and 0.03, images in [-1,1]
    b    0.0448, 0.2856, 0.3001, 0.2363, 0.1333

Five scales want 176 px a side, 11 at the last. Smaller images have as many as fit (64 px: three),
and the first b, divided by their sum: such values compare with others of the same size only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from ganinv.core.errors import config_error
from ganinv.metric.metric import Metric, Sample

WINDOW = 11
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
RANGE = 2.0


class MSSSIM(Metric):
    """Column ms_ssim; higher is better, at most 1."""

    def __init__(self) -> None:
        super().__init__({"ms_ssim": True})

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """{ms_ssim: [B]}.

        Raises:
            ConfigError: images smaller than the window.
        """
        value = multiscale_structural_similarity_index_measure(
            sample.x_hat,
            sample.x,
            data_range=RANGE,
            kernel_size=WINDOW,
            reduction="none",
            betas=betas_of(sample.x.shape[-2:]),
        )
        return {"ms_ssim": value}

    def protocol_at(self, size: Sequence[int]) -> dict[str, str]:
        """How many scales images of (H, W) px have."""
        scales, all_ = len(betas_of(size)), len(BETAS)
        how = f"{scales} scales" if scales == all_ else (
            f"the first {scales} of {all_} scales, for want of pixels, their exponents divided by "
            "their sum"
        )  # fmt: skip
        return {"ms_ssim": f"{how}; windows of {WINDOW} px, range 2, {size[0]} x {size[1]} px"}


def betas_of(size: Sequence[int]) -> tuple[float, ...]:
    """The exponents b of images of (H, W) px, one for each of their scales.

    Raises:
        ConfigError: images smaller than the window.
    """
    side = min(size)
    if side < WINDOW:
        raise config_error(
            f"images of {size[0]} x {size[1]} px for MS-SSIM",
            f"at least {WINDOW} px a side",
            "leave the metric `ms_ssim` out",
        )
    scales = max(m for m in range(1, len(BETAS) + 1) if _fits(side, m))
    if scales == len(BETAS):
        return BETAS
    whole = sum(BETAS[:scales])
    return tuple(beta / whole for beta in BETAS[:scales])


def _fits(side: int, scales: int) -> bool:
    """Whether the window fits into the last scale, and torchmetrics, whose bound is tighter for
    four scales, takes them."""
    return side >> (scales - 1) >= WINDOW and side // max(1, scales - 1) ** 2 >= WINDOW
