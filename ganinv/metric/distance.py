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

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """{column: [B]}."""
        return {self.column: self.term(sample.x_hat, sample.x)}
