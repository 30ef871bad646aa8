"""A term on a part of the image: what matters there counts more than what surrounds it.

Source: pSp's frontalisation (arXiv 2008.00951, released code), where L2 and LPIPS of the face's
crop weigh ten times as much as those of the whole image.

    region  (top, bottom, left, right), px of the images: rows top ... bottom - 1, and columns alike
    value   term(x_hat[region], x[region])
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ganinv.core.errors import ConfigError, explain
from ganinv.loss.term import Term


def crop(image: Tensor, region: Sequence[int]) -> Tensor:
    """image [B,C,H,W] -> [B,C,bottom-top,right-left].

    Raises:
        ConfigError: the region leaves the image.
    """
    top, bottom, left, right = region
    height, width = image.shape[-2:]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ConfigError(
            explain(
                f"the region {list(region)} of images of {height} x {width} px",
                "top < bottom and left < right inside the image",
                "correct the region in dataset.regions",
            )
        )
    return image[..., top:bottom, left:right]


def check_region_given(region: Sequence[int] | None, term: str, leave: str) -> None:
    """Called by terms that need a region.

    Raises:
        ConfigError: the dataset names none.
    """
    if region is None or len(region) != 4:
        raise ConfigError(
            explain(
                f"{term} on a dataset that does not say where the face is",
                "dataset.regions.face=[top,bottom,left,right] in px of its aligned images; "
                "[35,223,32,220] for faces aligned as FFHQ's, at 256 px",
                f"set it, or leave the term out ({leave})",
            )
        )


class Region(Term):
    """The term's value on the region, [B].

    Args:
        weight: factor in the total.
        region: (top, bottom, left, right), px.
        term: a term on images, of weight 1.

    Raises:
        ConfigError: no region, a term on something else, or one with a weight of its own.
    """

    reads = ("x_hat", "x")

    def __init__(self, *, weight: float, region: Sequence[int] | None, term: Term) -> None:
        super().__init__(weight=weight)
        check_region_given(region, "a term on a region", "set it to null")
        assert region is not None
        if term.reads != self.reads:
            raise ConfigError(
                explain(
                    f"a region around {type(term).__name__}, which reads {', '.join(term.reads)}",
                    "a term on images",
                    "put an image term inside, or leave the region out",
                )
            )
        if term.weight != 1:
            raise ConfigError(
                explain(
                    f"a term of weight {term.weight} inside a region of weight {weight}",
                    "1: the region's weight is the one that counts",
                    "set the inner weight to 1",
                )
            )
        self.region, self.term = tuple(int(edge) for edge in region), term

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat, x [B,3,H,W] -> [B]."""
        return self.compare(x_hat, self.remember(x))

    def remember(self, x: Tensor) -> list[Tensor]:
        """What the term keeps of x's region."""
        return self.term.remember(crop(x, self.region))

    def compare(self, x_hat: Tensor, remembered: Sequence[Tensor]) -> Tensor:
        """x_hat's region [B,3,...] against it -> [B]."""
        return self.term.compare(crop(x_hat, self.region), remembered)
