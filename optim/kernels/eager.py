"""The operators in plain PyTorch: any device, any floating dtype, one tensor after another.

T = tensors in the call. Lists hold one tensor of this rank for each of them; a shard may be empty.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def sum_squares(tensors: list[Tensor]) -> Tensor:
    """Return Σx² of each tensor, float64 [T]."""
    return torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]).square()


def lamb_update(
    grads: list[Tensor],
    weights: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    clip: Tensor,
    skip: Tensor,
    beta1: float,
    beta2: float,
    beta3: float,
    eps: float,
    weight_decay: float,
    bias_correction: bool,
) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]; `clip` and `skip` are scalars."""
    torch._foreach_add_(steps, (~skip).to(torch.float32))
    # Where skip holds every factor is 1 and every summand -0.0, the one number whose addition changes no bit.
    dtype = _wide_dtype(weights[0])
    keep1, keep2 = (torch.where(skip, 1.0, clip.new_full((), beta)).to(dtype) for beta in (beta1, beta2))
    clip = clip.to(dtype)
    for grad, m, v in zip(grads, exp_avgs, exp_avg_sqs, strict=True):
        g = torch.where(skip, -0.0, _wide(grad) * clip)
        m.copy_((_wide(m) * keep1).add_(g, alpha=beta3))
        v.copy_((_wide(v) * keep2).addcmul_(g, g, value=1 - beta2))
    directions = _directions(weights, exp_avgs, exp_avg_sqs, steps, beta1, beta2, eps, weight_decay, bias_correction)
    update_norms = [torch.linalg.vector_norm(u, dtype=torch.float64) for u in directions]
    return torch.stack((sum_squares(weights), torch.stack(update_norms).square()))


def lamb_apply(
    weights: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    scale: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias_correction: bool,
) -> None:
    """Subtract scale·u from each weight; `scale` is float64 [T], and 0 leaves a tensor's bits as they are."""
    directions = _directions(weights, exp_avgs, exp_avg_sqs, steps, beta1, beta2, eps, weight_decay, bias_correction)
    scales = scale.to(_wide_dtype(weights[0])).unbind()
    still = (scale == 0).unbind()
    for w, u, factor, keep in zip(weights, directions, scales, still, strict=True):
        w.sub_(torch.where(keep, 0.0, u * factor))


def _directions(
    weights: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias_correction: bool,
) -> Iterator[Tensor]:
    """Yield u of each tensor; both passes compute it, so that it is never stored for all tensors at once."""
    dtype = _wide_dtype(weights[0])
    t = torch.stack(steps).to(torch.float64).clamp(min=1)  # 0 only before a first step that is skipped
    correction1 = (1 - beta1**t if bias_correction else torch.ones_like(t)).to(dtype).unbind()
    correction2 = (1 - beta2**t if bias_correction else torch.ones_like(t)).sqrt().to(dtype).unbind()
    for w, m, v, c1, c2 in zip(weights, exp_avgs, exp_avg_sqs, correction1, correction2, strict=True):
        denominator = _wide(v).sqrt().div_(c2).add_(eps)
        yield (_wide(m) / c1).div_(denominator).add_(w, alpha=weight_decay)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(_wide_dtype(tensor))


def _wide_dtype(tensor: Tensor) -> torch.dtype:
    """Half precision is too short to compute in."""
    return torch.promote_types(tensor.dtype, torch.float32)
