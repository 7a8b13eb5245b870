"""The operators in plain PyTorch: any device, any floating dtype, one tensor after another.

`foreach` does the same for many tensors at once, where an operator costs a launch.

Shapes: T tensors in the call, B elements in a block of one tensor (0 where this rank holds nothing of it), n sums of
squares; `sums_2T` is [2, T]. A list in the plural has T tensors.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .moments import BLOCK as SCALED
from .moments import FIRST, SECOND, Moment, Place, Plain, Quantised, Rounded
from .operands import Backend, Operand, Operands
from .settings import Settings, float_of, table, unpack

CPU_BLOCK = 256 * SCALED
"""Elements that are computed at a time on a CPU, so that they stay in its cache."""

DEVICE_BLOCK = 1 << 24
"""The same on an accelerator, where each operator costs a launch; intermediate tensors stay below a few GB."""


def backend() -> Backend:
    """Return that this is plain PyTorch."""
    return Backend("eager", "plain PyTorch")


def reads(tensor: Tensor) -> bool:  # noqa: ARG001 - every backend is asked
    """Return True: PyTorch adds up the squares of any tensor."""
    return True


def takes(operand: Operand) -> bool:  # noqa: ARG001 - every backend is asked
    """Return True: PyTorch steps any tensor."""
    return True


def sum_squares(operands: Operands) -> Tensor:
    """Return Σx² of each gradient, float64 [T]."""
    wide = float_of(operands.device)
    norms_T = torch.stack([torch.linalg.vector_norm(grad, dtype=wide) for grad in operands.grads])
    return norms_T.square()


def lamb_clip(squares_n: Tensor, max_grad_norm: float, skip_nonfinite: bool) -> Tensor:
    """Return the norm of all gradients, the factor that clips it, and 1 if the step is to be skipped, float64 [3]."""
    norm = squares_n.sum().sqrt()
    factor = 1 / (norm / max_grad_norm).clamp(min=1) if max_grad_norm else torch.ones_like(norm)
    skip = ~norm.isfinite() if skip_nonfinite else torch.zeros_like(norm)
    return torch.stack([norm, factor, skip.to(norm.dtype)])


def lamb_update(operands: Operands, clip_3: Tensor) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]."""
    skip = clip_3[2] != 0
    torch._foreach_add_(operands.steps, [(~skip).to(torch.float32)] * len(operands))
    passes = _Passes(operands)
    factor = clip_3[1].to(passes.wide)
    norms = []
    for t, s in enumerate(passes.settings):
        parts = []
        copies = operands.copies[t : t + 1]
        for (grad_B, w_B, *copy_B), first, second in passes.blocks(t, operands.grads[t], operands.weights[t], *copies):
            for c_B in copy_B:  # a copy that is not its weight, rounded, was written by somebody else
                w_B.copy_(torch.where(skip | (c_B == w_B.to(c_B.dtype)), w_B, c_B))
            g_B = grad_B.to(passes.wide) * factor
            first.store((first.load() * s.beta1).add_(g_B, alpha=s.beta3), skip)
            second.store((second.load() * s.beta2).addcmul_(g_B, g_B, value=1 - s.beta2), skip)
            u_B = passes.direction(t, w_B, first, second)
            parts += [torch.linalg.vector_norm(x_B, dtype=clip_3.dtype) for x_B in (w_B, u_B)]
        norms.append(torch.linalg.vector_norm(torch.stack(parts).view(-1, 2), dim=0))
    return torch.stack(norms, dim=1).square()


def lamb_ratio(operands: Operands, sums_2T: Tensor, clip_3: Tensor, lr_T: Tensor) -> Tensor:
    """Return ‖w‖, ‖u‖, φ(‖w‖)/‖u‖ and the factor on u, float64 [4, T], from Σw² and Σu² of full tensors.

    The ratio is 1 where either norm is 0 or a tensor is not adapted. In a skipped step ‖u‖ and the factor are 0.
    """
    skip = clip_3[2] != 0
    settings_T11 = operands.settings.to(sums_2T.device, float_of(sums_2T.device))
    *_, weight_low_T, weight_high_T, ratio_low_T, ratio_high_T, _, adapted_T = settings_T11.unbind(dim=1)
    weight_norm_T, update_norm_T = sums_2T.sqrt()
    update_norm_T = update_norm_T.masked_fill(skip, 0.0)
    phi_T = weight_norm_T.clamp(weight_low_T, weight_high_T)
    ratio_T = (phi_T / update_norm_T).clamp(ratio_low_T, ratio_high_T)
    ratio_T = ratio_T.masked_fill((phi_T == 0) | (update_norm_T == 0) | (adapted_T == 0), 1.0)
    return torch.stack([weight_norm_T, update_norm_T, ratio_T, (ratio_T * lr_T).masked_fill(skip, 0.0)])


def lamb_apply(operands: Operands, scale_T: Tensor) -> None:
    """Subtract scale·u from each weight, and write its copy; where the scale is 0, not a bit changes."""
    passes = _Passes(operands)
    factors = zip(scale_T.to(passes.wide).unbind(), (scale_T == 0).unbind(), strict=True)
    for t, (factor, still) in enumerate(factors):
        weight = operands.weights[t]
        for (w_B,), first, second in passes.blocks(t, weight):
            w_B.sub_(torch.where(still, 0.0, passes.direction(t, w_B, first, second).mul_(factor)))
        for copy in operands.copies[t : t + 1]:
            copy.copy_(torch.where(still, copy, weight.to(copy.dtype)))


def lamb_step(operands: Operands, clip_3: Tensor, lr_T: Tensor) -> Tensor:
    """Take the whole step of tensors that no other rank has a part of; return what `lamb_ratio` does."""
    norms_4T = lamb_ratio(operands, lamb_update(operands, clip_3), clip_3, lr_T)
    lamb_apply(operands, norms_4T[3])
    return norms_4T


def bias_corrections(steps: list[Tensor], settings: list[Settings], wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what m and sqrt(v) are divided by, [T] each, in the width that is computed in."""
    device = steps[0].device
    dtype = float_of(device)
    t_T = torch.stack(steps).to(dtype).clamp(min=1)  # 0 only before a first step that is skipped
    beta1_T, beta2_T, *_, corrected_T, _ = table(settings).to(device, dtype).unbind(dim=1)
    first_T, second_T = (torch.where(corrected_T != 0, 1 - beta_T**t_T, 1.0) for beta_T in (beta1_T, beta2_T))
    return first_T.to(wide), second_T.sqrt().to(wide)


class _Passes:
    """The operands block by block; both passes compute u, so it is stored nowhere."""

    def __init__(self, operands: Operands) -> None:
        self.settings = unpack(operands.settings)
        # Half precision is too short to compute in.
        self.wide = torch.promote_types(operands.weights[0].dtype, torch.float32)
        self._operands = operands
        # All others are plain, whatever their dtype: the model may have been converted after they were made.
        weight, moment = operands.weights[0].dtype, operands.exp_avgs[0].dtype
        self._narrow = moment is torch.uint8 or (moment is torch.bfloat16 and weight is not moment)
        self._block = CPU_BLOCK if operands.weights[0].device.type == "cpu" else DEVICE_BLOCK
        self._first_T, self._second_T = bias_corrections(operands.steps, self.settings, self.wide)

    def direction(self, t: int, w_B: Tensor, first: Moment, second: Moment) -> Tensor:
        """Return u of a block."""
        denominator_B = second.load().sqrt().div_(self._second_T[t]).add_(self.settings[t].eps)
        return (first.load() / self._first_T[t]).div_(denominator_B).add_(w_B, alpha=self.settings[t].weight_decay)

    def blocks(self, t: int, *tensors: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Moment, Moment]]:
        """Yield matching blocks of tensors of one shape and of their moments."""
        if self._narrow:
            return self._flat_blocks(t, [tensor.reshape(-1) for tensor in tensors])
        return self._row_blocks(t, tensors)

    def _row_blocks(self, t: int, tensors: tuple[Tensor, ...]) -> Iterator[tuple[tuple[Tensor, ...], Moment, Moment]]:
        every = (*tensors, self._operands.exp_avgs[t], self._operands.exp_avg_sqs[t])
        numel = tensors[0].numel()
        rows = max(1, self._block * len(tensors[0]) // numel) if numel > self._block else 0
        for *parts, m, v in zip(*(torch.split(x, rows) for x in every), strict=True) if rows else [every]:
            yield tuple(parts), Plain(m, self.wide), Plain(v, self.wide)

    def _flat_blocks(self, t: int, tensors: list[Tensor]) -> Iterator[tuple[tuple[Tensor, ...], Moment, Moment]]:
        for begin in range(0, max(1, len(tensors[0])), self._block):
            parts = tuple(tensor[begin : begin + self._block] for tensor in tensors)
            yield parts, self._narrow_moment(t, begin, FIRST), self._narrow_moment(t, begin, SECOND)

    def _narrow_moment(self, t: int, begin: int, which: int) -> Moment:
        operands, end = self._operands, begin + self._block
        values = (operands.exp_avgs, operands.exp_avg_sqs)[which][t].view(-1)[begin:end]
        place = Place(begin, operands.steps[t], which)
        scales = (operands.first_scales, operands.second_scales)[which]
        if not scales:
            return Rounded(values, place)
        return Quantised(values, scales[t][begin // SCALED : end // SCALED], place)
