"""The operators in plain PyTorch on accelerators without kernels of ours: whole tensors, many in one operator.

`torch._foreach` starts one kernel for a list of tensors where `eager` starts some for every block of one. Moments in a
narrow format are left to `eager`.

Shapes: T tensors in the call; `sums_2T` is [2, T]. Lists in the plural have the tensors of a bucket: as many neighbours
of a call as fit into BUCKET elements, so that intermediate tensors stay below a few hundred MB, or one larger tensor.
"""

# ruff: noqa: SLF001 - torch._foreach has no public name

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from . import eager
from .operands import Backend, Operand, Operands
from .settings import Settings, float_of, unpack

# They compute a few numbers for each tensor.
lamb_clip = eager.lamb_clip
lamb_ratio = eager.lamb_ratio

Each = TypeVar("Each")
Tensors = tuple[Tensor, ...] | list[Tensor]

BUCKET = 1 << 24

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def backend() -> Backend:
    """Return that this is plain PyTorch."""
    return Backend("eager", "plain PyTorch, many tensors in one operator")


def reads(tensor: Tensor) -> bool:
    """Return True: PyTorch adds up the squares of any tensor."""
    return eager.reads(tensor)


def takes(operand: Operand) -> bool:
    """Return whether a tensor's moments are stored as its weight is."""
    return operand.exp_avg.dtype is operand.exp_avg_sq.dtype is operand.weight.dtype


def sum_squares(operands: Operands) -> Tensor:
    """Return Σx² of each gradient, float64 [T]."""
    return _norms(operands.grads).square()


def lamb_update(operands: Operands, clip_3: Tensor) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]."""
    skip = clip_3[2] != 0
    torch._foreach_add_(operands.steps, [(~skip).to(torch.float32)] * len(operands))
    sums = []
    for bucket in _buckets(operands):
        bucket.follow_copies(skip)
        gradients = torch._foreach_mul(_wide(bucket.own(operands.grads), bucket.wide), clip_3[1].to(bucket.wide))
        firsts, seconds = bucket.averages(gradients)
        _store(bucket.firsts, firsts, skip)
        _store(bucket.seconds, seconds, skip)
        sums.append(torch.stack([_norms(bucket.weights), _norms(bucket.directions())]).square())
    return torch.cat(sums, dim=1)


def lamb_apply(operands: Operands, scale_T: Tensor) -> None:
    """Subtract scale·u from each weight, and write its copy; where the scale is 0, not a bit changes."""
    for bucket in _buckets(operands):
        factors = bucket.own(list(scale_T.to(bucket.wide).unbind()))
        stills = bucket.own(list((scale_T == 0).unbind()))
        moved = zip(stills, factors, bucket.directions(), strict=True)
        torch._foreach_sub_(bucket.weights, [torch.where(still, 0.0, u.mul_(factor)) for still, factor, u in moved])
        for still, copy, weight in zip(stills, bucket.own(operands.copies), bucket.weights, strict=False):
            copy.copy_(torch.where(still, copy, weight.to(copy.dtype)))


lamb_step = eager.of_parts(lamb_update, lamb_apply)


class _Bucket:
    """Neighbours in a call."""

    def __init__(self, operands: Operands, settings: list[Settings], begin: int, end: int) -> None:
        self._range = slice(begin, end)
        self._settings = self.own(settings)
        self._copies = self.own(operands.copies)
        self.weights, self._steps = self.own(operands.weights), self.own(operands.steps)
        self.firsts, self.seconds = self.own(operands.exp_avgs), self.own(operands.exp_avg_sqs)
        # Half precision is too short to compute in.
        self.wide = torch.promote_types(self.weights[0].dtype, torch.float32)

    def own(self, column: list[Each]) -> list[Each]:
        """Return what belongs to the bucket."""
        return column[self._range]

    def follow_copies(self, skip: Tensor) -> None:
        """Let a copy that is not its weight, rounded, become the weight: it was written by somebody else."""
        for weight, copy in zip(self.weights, self._copies, strict=False):
            weight.copy_(torch.where(skip | (copy == weight.to(copy.dtype)), weight, copy))

    def averages(self, gradients: Tensors) -> tuple[Tensors, Tensors]:
        """Return what the moments become, in the width that is computed in."""
        firsts = torch._foreach_mul(_wide(self.firsts, self.wide), [s.beta1 for s in self._settings])
        torch._foreach_add_(firsts, torch._foreach_mul(gradients, [s.beta3 for s in self._settings]))
        seconds = torch._foreach_mul(_wide(self.seconds, self.wide), [s.beta2 for s in self._settings])
        torch._foreach_addcmul_(seconds, gradients, gradients, [1 - s.beta2 for s in self._settings])
        return firsts, seconds

    def directions(self) -> list[Tensor]:
        """Return u; both passes compute it, so it is stored nowhere."""
        corrections = eager.bias_corrections(self._steps, self._settings, self.wide)
        roots = torch._foreach_sqrt(_wide(self.seconds, self.wide))
        for root, (_, c2) in zip(roots, corrections, strict=True):
            root.div_(c2)
        torch._foreach_add_(roots, [s.eps for s in self._settings])
        u = [first.to(self.wide) / c1 for first, (c1, _) in zip(self.firsts, corrections, strict=True)]
        torch._foreach_div_(u, roots)
        weights = _wide(self.weights, self.wide)
        torch._foreach_add_(u, torch._foreach_mul(weights, [s.weight_decay for s in self._settings]))
        return u


def _buckets(operands: Operands) -> Iterator[_Bucket]:
    settings, begin, elements = unpack(operands.settings), 0, 0
    for end, count in enumerate(operands.numels):
        if end > begin and elements + count > BUCKET:
            yield _Bucket(operands, settings, begin, end)
            begin, elements = end, 0
        elements += count
    yield _Bucket(operands, settings, begin, len(operands))


def _wide(tensors: Tensors, wide: torch.dtype) -> list[Tensor]:
    return [tensor.to(wide) for tensor in tensors]


def _norms(tensors: list[Tensor]) -> Tensor:
    """Return the norm of each tensor, float64 [tensors]."""
    return torch.stack(list(torch._foreach_norm(tensors, 2, dtype=float_of(tensors[0].device))))


def _store(stored: list[Tensor], values: Tensors, skip: Tensor) -> None:
    """Write values in place, rounded, or change no bit where `skip` holds.

    There is no torch._foreach_where, and a product with 0 would leave a NaN one. So whole numbers with the same bits
    are multiplied, with 0 or 1, and added.
    """
    bits = _BITS[stored[0].element_size()]
    old = [tensor.view(bits) for tensor in stored]
    new = [value.to(tensor.dtype).view(bits) for tensor, value in zip(stored, values, strict=True)]
    torch._foreach_mul_(old, skip.to(bits))
    torch._foreach_mul_(new, (~skip).to(bits))
    torch._foreach_add_(old, new)
