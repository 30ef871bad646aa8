"""What a loss term is, and how terms are weighed and summed.

    x_hat, x [B,3,H,W] in [-1,1]    wp [B,L,D], w_avg [D]    value [B], unreduced, times nothing
    total = sum over terms of weight * mean over B of value

Weights stand in yaml. A term of weight 0 is measured, not trained; a term set to null is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain

Critic = Callable[[Tensor], Tensor]  # w [N,D] -> logits [N,1]


class Term(nn.Module):
    """One loss term. Its networks, if any, are frozen: it never leaves eval mode.

    A term `on = "image"` has `forward(x_hat, x) -> [B]`; a term `on = "latent"` has
    `forward(wp, w_avg, *, stage, critic) -> [B]` and takes of these what it needs.

    Args:
        weight: its factor in the total, at least 0.
    """

    on: ClassVar[Literal["image", "latent"]]

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        if not weight >= 0:
            raise ConfigError(
                explain(
                    f"a weight of {weight} for {type(self).__name__}",
                    "a number of at least 0",
                    "set weight=0 to measure the term only, or the term to null to leave it out",
                )
            )
        self.weight = float(weight)

    def train(self, mode: bool = True) -> Term:
        """Terms stay in eval mode, whatever `mode`."""
        return super().train(False)


class Terms(nn.ModuleDict):
    """The terms of a run, by the names they have in yaml and in the logs.

    Args:
        terms: name -> term, or None for a term that is left out.
    """

    def __init__(self, terms: Mapping[str, Term | None]) -> None:
        super().__init__({name: term for name, term in terms.items() if term is not None})
        self.requires_grad_(False)

    def check_any_term(self) -> None:
        """Called before training.

        Raises:
            ConfigError: no term has a weight above 0.
        """
        if not any(term.weight > 0 for _, term in self._on()):
            raise ConfigError(
                explain(
                    f"no loss to train on: {', '.join(self) or 'no term'}, none of weight above 0",
                    "at least one such term",
                    "give a term of the loss group a weight",
                )
            )

    def _on(self, on: str | None = None) -> Iterator[tuple[str, Term]]:
        for name, module in self.items():
            term = cast(Term, module)
            if on is None or term.on == on:
                yield name, term

    def weights(self, on: str) -> dict[str, float]:
        """name -> weight of the terms on "image" or "latent"."""
        return {name: term.weight for name, term in self._on(on)}

    def image(self, x_hat: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Every image term of x_hat against x, both [B,3,H,W] in [-1,1]; name -> [B]."""
        values = {}
        for name, term in self._on("image"):
            with torch.no_grad() if term.weight == 0 else nullcontext():
                values[name] = term(x_hat, x)
        return values

    def latent(
        self,
        wp: Tensor,
        w_avg: Tensor,
        *,
        stage: int | None = None,
        critic: Critic | None = None,
    ) -> dict[str, Tensor]:
        """Every latent term; name -> [B].

        Args:
            wp: codes with w_avg added, [B,L,D].
            w_avg: the generator's average, [D].
            stage: e4e's progressive stage: rows 0...stage are opened; None, all are.
            critic: the latent discriminator, for the terms that ask it.
        """
        values = {}
        for name, term in self._on("latent"):
            with torch.no_grad() if term.weight == 0 else nullcontext():
                values[name] = term(wp, w_avg, stage=stage, critic=critic)
        return values

    def total(self, values: Mapping[str, Tensor]) -> Tensor:
        """Sum of weight * mean(value) over the terms of weight above 0; a scalar."""
        parts = [
            term.weight * values[name].mean()
            for name, term in self._on()
            if term.weight > 0 and name in values
        ]
        return torch.stack(parts).sum()
