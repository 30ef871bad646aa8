"""Any loss term that compares two images, as a column: LPIPS, a backbone's distance, identity."""

from __future__ import annotations

from torch import Tensor, nn

from ganinv.metric.metric import Metric, Sample


class Distance(Metric):
    """One column; lower is better.

    Args:
        column: its name.
        term: a term on images, `term(x_hat, x) -> [B]`; its weight plays no part.
    """

    def __init__(self, *, column: str, term: nn.Module) -> None:
        super().__init__({column: False})
        self.column, self.term = column, term.eval()
        self.protocol = {column: network_of(term)}

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """{column: [B]}."""
        return {self.column: self.term(sample.x_hat, sample.x)}


def network_of(term: nn.Module) -> str:
    """The term's class and the network that it looks through, e.g. LPIPS over alex."""
    name = getattr(getattr(term, "network", None), "pnet_type", None)
    backbone = getattr(term, "backbone", None)
    if name is None and isinstance(backbone, nn.Module):
        name = type(backbone).__name__
    return type(term).__name__ + ("" if name is None else f" over {name}")
