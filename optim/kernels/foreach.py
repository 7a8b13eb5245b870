"""The operators in plain PyTorch on accelerators without kernels of ours: whole tensors, many in one operator.

`torch._foreach` starts one kernel for a list of tensors where `eager` starts some for every block of one. Moments in a
narrow format are left to `eager`.

Shapes: T tensors in the call. Lists in the plural have the tensors of a bucket: as many neighbours of a call as fit
into BUCKET elements, so that intermediate tensors stay below a few hundred MB, or one larger tensor.
"""

# ruff: noqa: SLF001 - torch._foreach has no public name

from collections.abc import Iterator

import torch
from torch import Tensor

from . import eager
from .operands import Backend, Operand, Operands
from .settings import float_of, unpack

# They compute a few numbers for each tensor.
lamb_clip = eager.lamb_clip
lamb_ratio = eager.lamb_ratio

Tensors = tuple[Tensor, ...] | list[Tensor]

BUCKET = 1 << 24

_BITS = {4: torch.int32, 8: torch.int64}


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
    sums = []
    for bucket in _buckets(operands):
        bucket.advance(clip_3)
        sums.append(bucket.squares(bucket.directions()))
    return torch.cat(sums, dim=1)


def lamb_apply(operands: Operands, scale_T: Tensor) -> None:
    """Subtract scale·u from each weight, and write its copy; where the scale is 0, not a bit changes."""
    for bucket in _buckets(operands):
        bucket.subtract(bucket.directions(), scale_T[bucket.range])


def lamb_step(operands: Operands, clip_3: Tensor, lr_T: Tensor) -> Tensor:
    """Take the whole step of one bucket after another, each with its u at hand; return what `lamb_ratio` does."""
    norms = []
    for bucket in _buckets(operands):
        bucket.advance(clip_3)
        directions = bucket.directions()
        norms.append(lamb_ratio(bucket.operands, bucket.squares(directions), clip_3, lr_T[bucket.range]))
        bucket.subtract(directions, norms[-1][3])
    return torch.cat(norms, dim=1)


class _Bucket:
    """Neighbours in a call whose moments decay alike.

    In a skipped step no bit may change, and the host does not know that it is one. So decays become 1 then, and
    gradients +0, which is subtracted: x - 0 is x for every x, while x + 0 turns -0 into +0.
    """

    def __init__(self, operands: Operands, begin: int, end: int) -> None:
        self.range = slice(begin, end)
        weights, grads, firsts, seconds, steps, copies, *_ = (column[self.range] for column in operands.lists)
        own_settings = operands.settings[self.range]
        self.operands = Operands(weights, grads, firsts, seconds, steps, copies, settings=own_settings)
        self._settings = unpack(self.operands.settings)
        # Half precision is too short to compute in.
        self._wide = torch.promote_types(self.operands.weights[0].dtype, torch.float32)

    def advance(self, clip_3: Tensor) -> None:
        """Advance steps and moments; a copy that is not its weight, rounded, becomes it: somebody else wrote that."""
        skip = clip_3[2] != 0
        torch._foreach_add_(self.operands.steps, [(~skip).to(torch.float32)] * len(self.operands))
        for weight, copy in zip(self.operands.weights, self.operands.copies, strict=False):
            weight.copy_(torch.where(skip | (copy == weight.to(copy.dtype)), weight, copy))
        negative = torch._foreach_mul(self._widened(self.operands.grads), -clip_3[1].to(self._wide))
        bits = _BITS[self._wide.itemsize]
        torch._foreach_mul_([each.view(bits) for each in negative], (~skip).to(bits))  # 0·NaN would be NaN
        self._average_firsts(negative, skip)
        self._average_seconds(negative, skip)

    def directions(self) -> list[Tensor]:
        """Return u = m / (c1·(sqrt(v)/c2 + eps)) + weight_decay·w."""
        c1_T, c2_T = eager.bias_corrections(self.operands.steps, self._settings, self._wide)
        eps_T = torch.tensor([s.eps for s in self._settings], dtype=self._wide, device=c1_T.device)
        denominators = torch._foreach_sqrt(self._widened(self.operands.exp_avg_sqs))
        for root, factor, summand in zip(denominators, c1_T / c2_T, c1_T * eps_T, strict=True):
            torch.addcmul(summand, root, factor, out=root)
        weights = self._widened(self.operands.weights)
        u = torch._foreach_mul(weights, [s.weight_decay for s in self._settings])
        torch._foreach_addcdiv_(u, self._widened(self.operands.exp_avgs), denominators)
        return list(u)

    def squares(self, directions: list[Tensor]) -> Tensor:
        """Return Σw² and Σu², float64 [2, tensors]."""
        return torch.stack([_norms(self.operands.weights), _norms(directions)]).square()

    def subtract(self, directions: list[Tensor], scale_T: Tensor) -> None:
        """Subtract scale·u from each weight, and write its copy; u is not needed again."""
        still_T, bits = scale_T == 0, _BITS[self._wide.itemsize]
        weights = self._widened(self.operands.weights)
        for u, moves in zip(directions, (~still_T).to(bits), strict=True):
            u.view(bits).mul_(moves)
        # Newer releases of PyTorch start one CUDA kernel for all of them if the factors come first. In a skipped step
        # this adds 0·(-0), which changes no bit.
        torch._foreach_addcmul_(weights, list(-scale_T.to(self._wide)), directions)
        _store(self.operands.weights, weights)
        for still, copy, weight in zip(still_T, self.operands.copies, weights, strict=False):
            copy.copy_(torch.where(still, copy, weight.to(copy.dtype)))

    def _average_firsts(self, negative: Tensors, skip: Tensor) -> None:
        averages = self._widened(self.operands.exp_avgs)
        torch._foreach_mul_(averages, self._decay(self._settings[0].beta1, skip))
        torch._foreach_sub_(averages, negative, alpha=self._settings[0].beta3)
        _store(self.operands.exp_avgs, averages)

    def _average_seconds(self, negative: Tensors, skip: Tensor) -> None:
        averages = self._widened(self.operands.exp_avg_sqs)
        torch._foreach_mul_(averages, self._decay(self._settings[0].beta2, skip))
        torch._foreach_addcmul_(averages, negative, negative, value=1 - self._settings[0].beta2)
        _store(self.operands.exp_avg_sqs, averages)

    def _decay(self, beta: float, skip: Tensor) -> Tensor:
        return torch.full_like(skip, beta, dtype=self._wide).masked_fill_(skip, 1.0)

    def _widened(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the tensors themselves, or wider copies of them."""
        return [tensor.to(self._wide) for tensor in tensors]


def _buckets(operands: Operands) -> Iterator[_Bucket]:
    begin, elements = 0, 0
    decays = [(s.beta1, s.beta2, s.beta3) for s in unpack(operands.settings)]
    for end, count in enumerate(operands.numels):
        if end > begin and (elements + count > BUCKET or decays[end] != decays[begin]):
            yield _Bucket(operands, begin, end)
            begin, elements = end, 0
        elements += count
    yield _Bucket(operands, begin, len(operands))


def _norms(tensors: list[Tensor]) -> Tensor:
    """Return the norm of each tensor, float64 [tensors]."""
    return torch.stack(list(torch._foreach_norm(tensors, 2, dtype=float_of(tensors[0].device))))


def _store(stored: list[Tensor], values: list[Tensor]) -> None:
    """Write values, rounded, where they are not what is stored itself."""
    if values[0] is not stored[0]:
        torch._foreach_copy_(stored, values)
