"""Ranger 20.4.11, the optimizer of pSp, e4e and ReStyle: centralised gradients, RAdam, Lookahead.

Sources: Yong et al., "Gradient Centralization", arXiv 2004.01461; Liu et al., "On the Variance of
the Adaptive Learning Rate", arXiv 1908.03265; Zhang et al., "Lookahead Optimizer", arXiv
1907.08610; and the update of the file those three repositories share, whose state keys are kept.

    g gradient   m, v first and second moment   t steps of this parameter   rho_inf = 2/(1-beta2)-1

    m <- beta1 m + (1-beta1) g            v <- beta2 v + (1-beta2) g^2       (g centralised)
    p <- p - lr r_t m / ((1-beta1^t) (sqrt(v) + eps))     once rho_t exceeds the threshold
    p <- p - lr m / (1-beta1^t)                           before (t < 6 for beta2 = 0.999)
    every k steps:  slow <- slow + alpha (p - slow),  p <- slow

v is not divided by its bias correction: (1-beta2^t) stands inside r_t, and eps is added to sqrt(v).
t counts the steps in which a parameter had a gradient, so that a head of e4e that opens late warms
up and looks ahead from its own beginning.

Differs from the released code in: tensors with equal t are updated together by torch._foreach_*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def rectification(t: int, beta2: float, threshold: float) -> float | None:
    """r_t of RAdam with the correction of v, or None while the variance is not tractable."""
    rho_inf = 2 / (1 - beta2) - 1
    beta2_t = beta2**t
    rho = rho_inf - 2 * t * beta2_t / (1 - beta2_t)
    if rho <= threshold:
        return None
    spread = (rho - 4) / (rho_inf - 4) * (rho - 2) / rho * rho_inf / (rho_inf - 2)
    return math.sqrt((1 - beta2_t) * spread)


class Ranger(torch.optim.Optimizer):
    """RAdam with gradient centralisation inside Lookahead.

    Args:
        params: parameters or groups of them, as for every torch optimizer.
        lr: learning rate.
        alpha: Lookahead's step towards the fast weights, in (0, 1].
        k: steps between two looks, at least 1.
        betas: decay of the two moments.
        n_sma_threshold: rho_t above which the step is adaptive.
        eps: added to the root of the uncorrected v.
        weight_decay: decoupled decay, scaled by lr.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        alpha: float,
        k: int,
        betas: tuple[float, float],
        n_sma_threshold: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        if not (0 < alpha <= 1 and k >= 1 and lr > 0 and eps > 0):
            raise ValueError(
                f"alpha={alpha}, k={k}, lr={lr}, eps={eps}; expected 0 < alpha <= 1, k >= 1, "
                "lr > 0 and eps > 0"
            )
        defaults = dict(
            lr=lr,
            alpha=alpha,
            k=k,
            betas=(float(betas[0]), float(betas[1])),
            N_sma_threshhold=n_sma_threshold,  # spelt as in the released state dicts
            eps=eps,
            weight_decay=weight_decay,
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; centralises the gradients in place."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_age: dict[int, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_age.setdefault(self._age(p), []).append(p)
            for t, parameters in by_age.items():
                self._update(group, t, parameters)
        return loss

    def _age(self, p: nn.Parameter) -> int:
        """Count this step; a parameter's first one makes its state."""
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
            state["slow_buffer"] = p.detach().clone()
        state["step"] += 1
        return int(state["step"])

    def _update(self, group: dict[str, Any], t: int, parameters: list[nn.Parameter]) -> None:
        """The equations above for parameters of one age."""
        lr, (beta1, beta2) = group["lr"], group["betas"]
        p: list[Tensor] = list(parameters)
        g = [q.grad for q in parameters if q.grad is not None]
        m, v, slow = (
            [self.state[q][key] for q in parameters]
            for key in ("exp_avg", "exp_avg_sq", "slow_buffer")
        )
        for gradient in g:
            if gradient.ndim > 1:
                gradient.sub_(gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True))
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        torch._foreach_mul_(m, beta1)
        torch._foreach_add_(m, g, alpha=1 - beta1)
        if group["weight_decay"]:
            torch._foreach_mul_(p, 1 - lr * group["weight_decay"])
        r = rectification(t, beta2, group["N_sma_threshhold"])
        if r is None:
            torch._foreach_add_(p, m, alpha=-lr / (1 - beta1**t))
        else:
            denominator = torch._foreach_sqrt(v)
            torch._foreach_add_(denominator, group["eps"])
            torch._foreach_addcdiv_(p, m, denominator, -lr * r / (1 - beta1**t))
        if t % group["k"] == 0:
            torch._foreach_lerp_(slow, p, group["alpha"])
            torch._foreach_copy_(p, slow)
