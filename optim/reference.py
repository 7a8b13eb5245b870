"""The oracle: one LAMB step of one tensor, in float64, written to be read beside the equation.

Shapes: all tensors have the parameter's, so no name has a suffix.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

Bounds = tuple[float, float] | None


class LambStep(NamedTuple):
    """What one step makes of one tensor. `weight`, `exp_avg` and `exp_avg_sq` are new float64 tensors of its shape."""

    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    weight_norm: float
    update_norm: float
    trust_ratio: float
    clip_coef: float


def lamb_step(
    weight: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    bias_correction: bool = True,
    grad_averaging: bool = True,
    max_grad_norm: float | None = None,
    weight_norm_bounds: Bounds = None,
    trust_ratio_bounds: Bounds = None,
    layer_adaptation: bool = True,
    grad_norm: float | None = None,
) -> LambStep:
    """Return the tensor after one step; the arguments are left as they are.

    Args:
        weight: the whole tensor before the step.
        gradient: its gradient, unclipped and finite.
        exp_avg: first moment, zeros before the first step.
        exp_avg_sq: second moment, zeros before the first step.
        step: 1 at the first step.
        lr: learning rate of this step.
        betas: decay of the two moments.
        eps: added outside the square root.
        weight_decay: part of the update, and so under the trust ratio.
        bias_correction: divide the moments by 1 - beta^step.
        grad_averaging: weigh the gradient with 1 - beta1 in the first moment; with 1 if off.
        max_grad_norm: the norm of all gradients together is clipped to this; None and 0 are off.
        weight_norm_bounds: (low, high) to which the norm of the weight is clamped before the ratio is taken.
        trust_ratio_bounds: (low, high) to which the ratio is clamped.
        layer_adaptation: if off, the ratio is 1.
        grad_norm: norm of the gradients of ALL tensors; that of this gradient if it is the only one.
    """
    w, g, m, v = (tensor.detach().to(torch.float64) for tensor in (weight, gradient, exp_avg, exp_avg_sq))
    beta1, beta2 = betas

    global_norm = _norm(g) if grad_norm is None else grad_norm
    clip_coef = 1 / max(1.0, global_norm / max_grad_norm) if max_grad_norm else 1.0
    g = clip_coef * g

    m = beta1 * m + ((1 - beta1) if grad_averaging else 1.0) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**step) if bias_correction else m
    v_hat = v / (1 - beta2**step) if bias_correction else v
    u = m_hat / (v_hat.sqrt() + eps) + weight_decay * w

    weight_norm, update_norm = _norm(w), _norm(u)
    trust_ratio = 1.0
    phi = _clamp(weight_norm, weight_norm_bounds)
    if layer_adaptation and phi != 0 and update_norm != 0:
        trust_ratio = _clamp(phi / update_norm, trust_ratio_bounds)
    return LambStep(w - lr * trust_ratio * u, m, v, weight_norm, update_norm, trust_ratio, clip_coef)


def _norm(tensor: Tensor) -> float:
    return math.sqrt(math.fsum(x * x for x in tensor.flatten().tolist()))


def _clamp(value: float, bounds: Bounds) -> float:
    return value if bounds is None else min(max(value, bounds[0]), bounds[1])
