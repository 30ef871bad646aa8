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

`found_inf`, set as torch.amp.GradScaler does: where it is 1 on the device, a step moves nothing. It
counts in t, for the CPU does not know of it.

Differs from the released code in: tensors with equal t are updated together, in one pass over their
memory: torch's fused Adam at a step so late that its own bias corrections are 1 is

    p <- p - size m / (sqrt(v) + eps)
    size = lr r_t / (1-beta1^t),  or size = lr / (1-beta1^t) eps with an eps beside which v vanishes

A compiler sees nothing of that kernel, so it is given the same formula in plain operations
(`plain_update`), with the numbers that change from step to step as tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ganinv.optimizer.skip import laid_out_as

Tensors = list[Tensor]
Update = Callable[[Tensors, Tensors, Tensors, Tensors, Tensor, tuple[float, float], Tensor], None]
MOVED = ("exp_avg", "exp_avg_sq", "slow_buffer")
LATE = 1e9  # the step of which beta^t is 0
AT_ONCE = 64  # tensors of a graph: the time of compiling grows faster than their number
FAR = 2.0**40  # an eps beside which sqrt(v) vanishes; times it and over it is exact


def rectification(t: int, beta2: float, threshold: float) -> float | None:
    """r_t of RAdam with the correction of v, or None while the variance is not tractable."""
    rho_inf = 2 / (1 - beta2) - 1
    beta2_t = beta2**t
    rho = rho_inf - 2 * t * beta2_t / (1 - beta2_t)
    if rho <= threshold:
        return None
    spread = (rho - 4) / (rho_inf - 4) * (rho - 2) / rho * rho_inf / (rho_inf - 2)
    return math.sqrt((1 - beta2_t) * spread)


def plain_update(
    p: Tensors, g: Tensors, m: Tensors, v: Tensors, rates: Tensor, betas: tuple[float, float],
    skip: Tensor,
) -> None:  # fmt: skip
    """What `Ranger` does to tensors of one age, in place, in operations that a compiler knows.

    Args:
        p, g, m, v: see the module; g is left as it is, not centralised.
        rates: size, eps and the share of p that decays, [3].
        betas: as `Ranger`.
        skip: [], 1 to leave all as it is, whatever g holds, and 0.
    """
    size, eps, decay = rates.unbind()
    keep = 1 - skip
    g = [torch.where(skip > 0, 0, gradient) for gradient in g]
    g = [x - x.mean(tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x for x in g]
    torch._foreach_add_(m, torch._foreach_mul(torch._foreach_sub(g, m), keep * (1 - betas[0])))
    square = torch._foreach_mul(g, g)
    torch._foreach_add_(v, torch._foreach_mul(torch._foreach_sub(square, v), keep * (1 - betas[1])))
    way = torch._foreach_div(m, torch._foreach_add(torch._foreach_sqrt(v), eps))
    torch._foreach_mul_(p, 1 - keep * decay)
    torch._foreach_add_(p, torch._foreach_mul(way, -keep * size))


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

    update: Update | None = None  # `plain_update`, compiled; None: torch's fused kernel

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
        self._step_supports_amp_scaling = True  # the name that GradScaler asks for

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; may centralise the gradients in
        place."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_age: dict[int, list[nn.Parameter]] = {}
            moving = [p for p in group["params"] if p.grad is not None]
            self._begin([p for p in moving if not self.state[p]])
            for p in moving:
                by_age.setdefault(self._age(p), []).append(p)
            for t, parameters in by_age.items():
                self._update(group, t, parameters)
        return loss

    def _begin(self, parameters: list[nn.Parameter]) -> None:
        """Make the states of parameters that take their first step."""
        for p in parameters:
            self.state[p] = {"step": 0} | {key: torch.empty_like(p) for key in MOVED}
        if parameters:
            m, v, slow = ([self.state[p][key] for p in parameters] for key in MOVED)
            torch._foreach_zero_(m + v)
            torch._foreach_copy_(slow, list[Tensor](parameters))

    def _age(self, p: nn.Parameter) -> int:
        """Count this step."""
        state = self.state[p]
        for key in MOVED:  # a checkpoint's may lie otherwise
            state[key] = laid_out_as(state[key], p)
        state["step"] += 1
        return int(state["step"])

    def _update(self, group: dict[str, Any], t: int, parameters: list[nn.Parameter]) -> None:
        """The equations above for parameters of one age."""
        lr, (beta1, beta2) = group["lr"], group["betas"]
        p: list[Tensor] = list(parameters)
        g = [laid_out_as(q.grad, q) for q in parameters if q.grad is not None]
        m, v, slow = ([self.state[q][key] for q in parameters] for key in MOVED)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        r = rectification(t, beta2, group["N_sma_threshhold"])
        size, eps = lr / (1 - beta1**t), group["eps"]
        size, eps = (size * FAR, FAR) if r is None else (size * r, eps)
        if self.update is None:
            self._fused(p, g, m, v, (size, eps, group["weight_decay"] * lr), (beta1, beta2))
        else:
            rates = torch.tensor([size, eps, group["weight_decay"] * lr], dtype=p[0].dtype)
            skip = p[0].new_zeros(()) if found_inf is None else found_inf
            on_device = rates.to(p[0].device, non_blocking=True)
            for first in range(0, len(p), AT_ONCE):
                part = slice(first, first + AT_ONCE)
                self.update(p[part], g[part], m[part], v[part], on_device, (beta1, beta2), skip)
        if t % group["k"] == 0:
            self._look_ahead(p, slow, group["alpha"], found_inf)

    def _fused(
        self, p: Tensors, g: Tensors, m: Tensors, v: Tensors,
        rates: tuple[float, float, float], betas: tuple[float, float],
    ) -> None:  # fmt: skip
        """The update by torch's fused kernel; centralises g in place."""
        for gradient in g:
            if gradient.ndim > 1:
                gradient.sub_(gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True))
        size, eps, decay = rates
        late = p[0].new_full((), LATE, dtype=torch.float32)
        torch._fused_adamw_(
            p, g, m, v, [], [late] * len(p), lr=size, beta1=betas[0], beta2=betas[1], eps=eps,
            weight_decay=decay / size if size else 0.0,  # scaled by lr, not by size
            amsgrad=False, maximize=False, found_inf=getattr(self, "found_inf", None),
        )  # fmt: skip

    @staticmethod
    def _look_ahead(p: list[Tensor], slow: list[Tensor], alpha: float, skip: Tensor | None) -> None:
        """slow <- slow + alpha (p - slow), p <- slow; neither where skip is 1."""
        if skip is None:
            torch._foreach_lerp_(slow, p, alpha)
            torch._foreach_copy_(p, slow)
            return
        way = torch._foreach_sub(p, slow)
        torch._foreach_mul_(way, alpha * (1 - skip))
        torch._foreach_add_(slow, way)
        torch._foreach_mul_(p, skip)
        torch._foreach_add_(p, torch._foreach_mul(slow, 1 - skip))
