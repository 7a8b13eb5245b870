"""The operators in plain PyTorch: any device, any floating dtype, one tensor after another.

T = tensors in the call. Lists hold one tensor of this rank for each of them; a shard may be empty.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 65536
"""Elements that are worked on at a time."""


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
    torch._foreach_add_(steps, [(~skip).to(torch.float32)] * len(steps))
    dtype = _wide_dtype(weights[0])
    # Where skip holds every factor is 1 and every summand -0.0, the one number whose addition changes no bit.
    keep1, keep2 = (torch.where(skip, 1.0, clip.new_full((), beta)).to(dtype) for beta in (beta1, beta2))
    clip = clip.to(dtype)
    corrections = _corrections(steps, beta1, beta2, bias_correction, dtype)
    norms = []
    lists = zip(grads, weights, exp_avgs, exp_avg_sqs, strict=True)
    for tensors, correction in zip(lists, corrections, strict=True):
        parts = []
        for grad, w, m, v in _blocks(tensors):
            g = torch.where(skip, -0.0, _wide(grad) * clip)
            m.copy_((_wide(m) * keep1).add_(g, alpha=beta3))
            v.copy_((_wide(v) * keep2).addcmul_(g, g, value=1 - beta2))
            u = _direction(w, m, v, correction, eps, weight_decay)
            parts += [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in (w, u)]
        norms.append(torch.linalg.vector_norm(torch.stack(parts).view(-1, 2), dim=0))
    return torch.stack(norms, dim=1).square()


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
    dtype = _wide_dtype(weights[0])
    corrections = _corrections(steps, beta1, beta2, bias_correction, dtype)
    scalars = zip(corrections, scale.to(dtype).unbind(), (scale == 0).unbind(), strict=True)
    lists = zip(weights, exp_avgs, exp_avg_sqs, strict=True)
    for tensors, (correction, factor, still) in zip(lists, scalars, strict=True):
        for w, m, v in _blocks(tensors):
            w.sub_(torch.where(still, 0.0, _direction(w, m, v, correction, eps, weight_decay).mul_(factor)))


def trust_ratio(
    sums: Tensor,
    skip: Tensor,
    layer_adaptation: bool,
    weight_norm_bounds: tuple[float, float],
    trust_ratio_bounds: tuple[float, float],
) -> Tensor:
    """Return ‖w‖, ‖u‖ and φ(‖w‖)/‖u‖, float64 [3, T], from Σw² and Σu² of whole tensors, [2, T].

    The ratio is 1 where either norm is 0 or tensors are not adapted; where `skip` holds, nothing is done and ‖u‖ is 0.
    """
    weight_norm, update_norm = sums.sqrt()
    update_norm = update_norm.masked_fill(skip, 0.0)
    ratio = torch.ones_like(weight_norm)
    if layer_adaptation:
        phi = weight_norm.clamp(*weight_norm_bounds)
        ratio = (phi / update_norm).clamp(*trust_ratio_bounds).masked_fill((phi == 0) | (update_norm == 0), 1.0)
    return torch.stack([weight_norm, update_norm, ratio])


def lamb_step(
    grads: list[Tensor],
    weights: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    clip: Tensor,
    skip: Tensor,
    lr: Tensor,
    beta1: float,
    beta2: float,
    beta3: float,
    eps: float,
    weight_decay: float,
    bias_correction: bool,
    layer_adaptation: bool,
    weight_norm_bounds: tuple[float, float],
    trust_ratio_bounds: tuple[float, float],
) -> Tensor:
    """Take the whole step of tensors that no rank shares, and return ‖w‖, ‖u‖ and the ratio, float64 [3, T]."""
    constants = (eps, weight_decay, bias_correction)
    sums = lamb_update(grads, weights, exp_avgs, exp_avg_sqs, steps, clip, skip, beta1, beta2, beta3, *constants)
    norms = trust_ratio(sums, skip, layer_adaptation, weight_norm_bounds, trust_ratio_bounds)
    scale = (norms[2] * lr).masked_fill(skip, 0.0)
    lamb_apply(weights, exp_avgs, exp_avg_sqs, steps, scale, beta1, beta2, *constants)
    return norms


def _corrections(
    steps: list[Tensor], beta1: float, beta2: float, bias_correction: bool, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor]]:
    """Return what m and sqrt(v) are divided by, for each tensor."""
    t = torch.stack(steps).to(torch.float64).clamp(min=1)  # 0 only before a first step that is skipped
    first, second = (1 - beta**t if bias_correction else torch.ones_like(t) for beta in (beta1, beta2))
    return list(zip(first.to(dtype).unbind(), second.sqrt().to(dtype).unbind(), strict=True))


def _direction(
    w: Tensor, m: Tensor, v: Tensor, correction: tuple[Tensor, Tensor], eps: float, weight_decay: float
) -> Tensor:
    """Return u; both passes compute it, so it is stored nowhere."""
    denominator = _wide(v).sqrt().div_(correction[1]).add_(eps)
    return (_wide(m) / correction[0]).div_(denominator).add_(w, alpha=weight_decay)


def _blocks(tensors: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Yield matching rows of tensors of one shape, so few that what is computed from them stays in cache."""
    first = tensors[0]
    if first.numel() <= BLOCK:
        return iter((tensors,))
    rows = max(1, BLOCK * len(first) // first.numel())
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(_wide_dtype(tensor))


def _wide_dtype(tensor: Tensor) -> torch.dtype:
    """Half precision is too short to compute in."""
    return torch.promote_types(tensor.dtype, torch.float32)
