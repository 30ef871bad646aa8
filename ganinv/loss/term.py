"""What a loss term is, and how terms are weighed and summed.

    x_hat, x [B,3,H,W] in [-1,1]    wp [B,L,D], w_avg [D]    value [B], unreduced, times nothing
    losses   name -> (weight, value [B])
    total    sum over losses of weight * mean over B of value

Weights stand in yaml. A term of weight 0 is measured, not trained; a term set to null is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain

Critic = Callable[[Tensor], Tensor]  # w [N,D] -> logits [N,1]
Losses = dict[str, tuple[float, Tensor]]  # name -> (weight, value [B])


def total(losses: Losses) -> Tensor:
    """Sum of weight * mean(value) over the losses of weight above 0; a scalar."""
    return torch.stack([weight * value.mean() for weight, value in losses.values() if weight]).sum()


class Term(nn.Module):
    """One loss term. Its networks, if any, are frozen: it never leaves eval mode.

    `forward(...) -> [B]` takes what `reads` names of a step, under these names:

        x_hat, x   reconstruction and target [B,3,H,W]     wp, w_avg   codes [B,L,D], average [D]
        f          feature map [B,C,h,h]                   stage       e4e's last opened layer
        critic     e4e's discriminator of codes

    Args:
        weight: its factor in the total, at least 0.
    """

    reads: ClassVar[tuple[str, ...]]

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

    def remember(self, x: Tensor) -> list[Tensor]:
        """What an image term keeps of its target x [B,3,H,W], each [B,...]: where the target stays
        for many steps, its features are computed once."""
        return [x]

    def compare(self, x_hat: Tensor, remembered: Sequence[Tensor]) -> Tensor:
        """The term's value [B] for x_hat and what `remember` kept."""
        value: Tensor = self(x_hat, remembered[0])
        return value

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

    def forward(self, **step: Any) -> Losses:
        """Every term on what it reads of a step; name -> (weight, [B])."""
        losses: Losses = {}
        for name, term in self.terms().items():
            with torch.no_grad() if term.weight == 0 else nullcontext():
                losses[name] = term.weight, term(**{read: step[read] for read in term.reads})
        return losses

    def terms(self) -> dict[str, Term]:
        """name -> term."""
        return {name: cast(Term, module) for name, module in self.items()}

    def readable(self, given: Collection[str]) -> Terms:
        """The terms that read nothing but what is given."""
        return Terms({n: t for n, t in self.terms().items() if set(t.reads) <= set(given)})

    def check_trainable(self, given: Collection[str], method: str) -> None:
        """Called before training.

        Args:
            given: what the method gives its terms to read.
            method: its name, for the message.

        Raises:
            ConfigError: a term reads something else; no term has a weight above 0.
        """
        for name, term in self.terms().items():
            missing = [read for read in term.reads if read not in given]
            if missing:
                raise ConfigError(
                    explain(
                        f"loss.{name}, which reads {' and '.join(missing)}, with {method}",
                        f"terms that read {', '.join(given)}: {method} has nothing else",
                        f"set loss.{name}=null, or choose a method that has it",
                    )
                )
        if not any(term.weight > 0 for term in self.terms().values()):
            raise ConfigError(
                explain(
                    f"no loss to train on: {', '.join(self) or 'no term'}, none of weight above 0",
                    "at least one such term",
                    "give a term of the loss group a weight",
                )
            )
