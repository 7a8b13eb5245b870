"""The operators in plain PyTorch: any device, any floating dtype, one tensor after another.

T = tensors in the call. Lists hold one tensor of this rank for each of them; a shard may be empty. Arguments are those
that `operators` describes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .moments import BLOCK as SCALED
from .moments import FIRST, SECOND, Moment, Place, Plain, Quantised, Rounded
from .settings import unpack

BLOCK = 256 * SCALED
"""Elements that are worked on at a time."""


def sum_squares(tensors: list[Tensor]) -> Tensor:
    """Return Σx² of each tensor, float64 [T]."""
    return torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]).square()


def lamb_clip(squares: Tensor, max_grad_norm: float, skip_nonfinite: bool) -> Tensor:
    """Return the norm of all gradients, the factor that clips it, and 1 if the step is to be skipped, float64 [3]."""
    norm = squares.sum().sqrt()
    clip = 1 / (norm / max_grad_norm).clamp(min=1) if max_grad_norm else torch.ones_like(norm)
    skip = ~norm.isfinite() if skip_nonfinite else torch.zeros_like(norm)
    return torch.stack([norm, clip, skip.to(norm.dtype)])


def lamb_update(
    grads: list[Tensor],
    weights: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scales: list[Tensor],
    steps: list[Tensor],
    clip: Tensor,
    settings: Tensor,
) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]."""
    skip = clip[2] != 0
    torch._foreach_add_(steps, [(~skip).to(torch.float32)] * len(steps))
    tensors = _Tensors(weights, exp_avgs, exp_avg_sqs, scales, steps, settings)
    factor = clip[1].to(tensors.wide)
    norms = []
    for t, s in enumerate(tensors.settings):
        parts = []
        for (grad, w), first, second in tensors.blocks(t, grads[t], weights[t]):
            g = grad.to(tensors.wide) * factor
            first.store((first.load() * s.beta1).add_(g, alpha=s.beta3), skip)
            second.store((second.load() * s.beta2).addcmul_(g, g, value=1 - s.beta2), skip)
            u = tensors.direction(t, w, first, second)
            parts += [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in (w, u)]
        norms.append(torch.linalg.vector_norm(torch.stack(parts).view(-1, 2), dim=0))
    return torch.stack(norms, dim=1).square()


def lamb_ratio(sums: Tensor, clip: Tensor, lr: Tensor, settings: Tensor) -> Tensor:
    """Return ‖w‖, ‖u‖, φ(‖w‖)/‖u‖ and what u is multiplied with, float64 [4, T], from Σw² and Σu² of whole tensors.

    The ratio is 1 where either norm is 0 or a tensor is not adapted. In a skipped step ‖u‖ and the scale are 0.
    """
    skip = clip[2] != 0
    *_, weight_low, weight_high, ratio_low, ratio_high, _, adapted = settings.to(sums.device).unbind(dim=1)
    weight_norm, update_norm = sums.sqrt()
    update_norm = update_norm.masked_fill(skip, 0.0)
    phi = weight_norm.clamp(weight_low, weight_high)
    ratio = (phi / update_norm).clamp(ratio_low, ratio_high)
    ratio = ratio.masked_fill((phi == 0) | (update_norm == 0) | (adapted == 0), 1.0)
    return torch.stack([weight_norm, update_norm, ratio, (ratio * lr).masked_fill(skip, 0.0)])


def lamb_apply(
    weights: list[Tensor],
    copies: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scales: list[Tensor],
    steps: list[Tensor],
    scale: Tensor,
    settings: Tensor,
) -> None:
    """Subtract scale·u from each weight; `scale` is float64 [T], and 0 leaves a tensor's bits as they are."""
    tensors = _Tensors(weights, exp_avgs, exp_avg_sqs, scales, steps, settings)
    factors = zip(scale.to(tensors.wide).unbind(), (scale == 0).unbind(), strict=True)
    for t, (factor, still) in enumerate(factors):
        for (w,), first, second in tensors.blocks(t, weights[t]):
            w.sub_(torch.where(still, 0.0, tensors.direction(t, w, first, second).mul_(factor)))
        for copy in copies[t : t + 1]:
            copy.copy_(torch.where(still, copy, weights[t].to(copy.dtype)))


def lamb_step(
    grads: list[Tensor],
    weights: list[Tensor],
    copies: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scales: list[Tensor],
    steps: list[Tensor],
    clip: Tensor,
    lr: Tensor,
    settings: Tensor,
) -> Tensor:
    """Take the whole step of tensors that no rank shares, and return what `lamb_ratio` does, float64 [4, T]."""
    moments = (exp_avgs, exp_avg_sqs, scales, steps)
    sums = lamb_update(grads, weights, *moments, clip, settings)
    norms = lamb_ratio(sums, clip, lr, settings)
    lamb_apply(weights, copies, *moments, norms[3], settings)
    return norms


class _Tensors:
    """The tensors of a call, block by block; both passes compute u, so it is stored nowhere."""

    def __init__(
        self,
        weights: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        scales: list[Tensor],
        steps: list[Tensor],
        settings: Tensor,
    ) -> None:
        self.settings = unpack(settings)
        # Half precision is too short to compute in.
        self.wide = torch.promote_types(weights[0].dtype, torch.float32)
        self._narrow = exp_avgs[0].dtype is not weights[0].dtype
        self._exp_avgs, self._exp_avg_sqs, self._scales, self._steps = exp_avgs, exp_avg_sqs, scales, steps
        self._corrections = self._bias_corrections(settings.to(steps[0].device))

    def _bias_corrections(self, settings: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return what m and sqrt(v) are divided by, for each tensor."""
        t = torch.stack(self._steps).to(torch.float64).clamp(min=1)  # 0 only before a first step that is skipped
        beta1, beta2, *_, corrected, _ = settings.unbind(dim=1)
        first, second = (torch.where(corrected != 0, 1 - beta**t, 1.0) for beta in (beta1, beta2))
        return list(zip(first.to(self.wide).unbind(), second.sqrt().to(self.wide).unbind(), strict=True))

    def direction(self, t: int, w: Tensor, first: Moment, second: Moment) -> Tensor:
        """Return u of a block."""
        c1, c2 = self._corrections[t]
        denominator = second.load().sqrt().div_(c2).add_(self.settings[t].eps)
        return (first.load() / c1).div_(denominator).add_(w, alpha=self.settings[t].weight_decay)

    def blocks(self, t: int, *tensors: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Moment, Moment]]:
        """Yield matching blocks of tensors of one shape and of their moments, so small that they stay in cache."""
        if self._narrow:
            return self._flat_blocks(t, [tensor.reshape(-1) for tensor in tensors])
        return self._row_blocks(t, tensors)

    def _row_blocks(self, t: int, tensors: tuple[Tensor, ...]) -> Iterator[tuple[tuple[Tensor, ...], Moment, Moment]]:
        every = (*tensors, self._exp_avgs[t], self._exp_avg_sqs[t])
        rows = max(1, BLOCK * len(tensors[0]) // tensors[0].numel()) if tensors[0].numel() > BLOCK else 0
        for *parts, m, v in zip(*(torch.split(x, rows) for x in every), strict=True) if rows else [every]:
            yield tuple(parts), Plain(m, self.wide), Plain(v, self.wide)

    def _flat_blocks(self, t: int, tensors: list[Tensor]) -> Iterator[tuple[tuple[Tensor, ...], Moment, Moment]]:
        for begin in range(0, max(1, len(tensors[0])), BLOCK):
            parts = tuple(tensor[begin : begin + BLOCK] for tensor in tensors)
            yield parts, self._narrow_moment(t, begin, FIRST), self._narrow_moment(t, begin, SECOND)

    def _narrow_moment(self, t: int, begin: int, which: int) -> Moment:
        values = (self._exp_avgs, self._exp_avg_sqs)[which][t].view(-1)[begin : begin + BLOCK]
        place = Place(begin, self._steps[t], which)
        if not self._scales:
            return Rounded(values, place)
        scales = self._scales[which * len(self._steps) + t]
        return Quantised(values, scales[begin // SCALED : (begin + BLOCK) // SCALED], place)
