"""The first two phases of a step: the norm of all gradients, the factor on them, and whether all ranks skip the step.

Shapes: n sums of squares; `squares_n` is [n].
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

from optim.kernels import eager
from optim.kernels.settings import float_of
from optim.sharding import all_reduce, total_over_shards

from .remembered import Call


class Scaling(NamedTuple):
    """What torch.amp.GradScaler sets on an optimizer before its step, and removes after it."""

    grad_scale: Tensor | float | None
    """What the gradients were multiplied with; None where they were divided by it already."""
    found_inf: Tensor | float | None
    """Not 0 where a gradient is Inf or NaN; None without a GradScaler."""

    @classmethod
    def of(cls, optimizer: object) -> "Scaling":
        """Read the two attributes."""
        return cls(getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None))

    @property
    def is_on(self) -> bool:
        """Whether a GradScaler takes part in this step."""
        return self.grad_scale is not None or self.found_inf is not None


class Clip(NamedTuple):
    """Two float64 [3]: the norm of the gradients, the factor on them, and 1 if the step is skipped."""

    told: Tensor
    """Of the gradients without a GradScaler's scale."""
    applied: Tensor
    """The same, but the factor also divides the gradients by that scale."""
    has_norm: bool = True
    """Whether somebody took the norm."""


def squares_of(
    calls: Sequence[Call], device: torch.device, process_group: ProcessGroup | None, scaling: Scaling
) -> Tensor:
    """Return numbers, float64 [n], whose sum is the square of the norm of all gradients; Inf or NaN if one is.

    A rank without gradients takes part in the sum over `process_group`.
    """
    squares = [call.kernels.sum_squares(call.operands) for call in calls]
    groups = [call.groups for call in calls]
    squares_n = total_over_shards(squares, groups) if calls else torch.zeros(1, dtype=float_of(device), device=device)
    squares_n = _or_inf(squares_n, scaling)
    return squares_n if process_group is None else all_reduce(squares_n.sum().view(1), (process_group,))


def squares_of_norm(grad_norm: Tensor | float, device: torch.device, scaling: Scaling) -> Tensor:
    """Return the square of a norm that somebody else took, float64 [1]."""
    norm = grad_norm.full_tensor() if isinstance(grad_norm, DTensor) else grad_norm
    return _or_inf(torch.as_tensor(norm, dtype=float_of(device), device=device).square().reshape(1), scaling)


def _or_inf(squares_n: Tensor, scaling: Scaling) -> Tensor:
    if scaling.found_inf is None:
        return squares_n
    found = torch.as_tensor(scaling.found_inf, device=squares_n.device) != 0
    return torch.where(found, math.inf, squares_n)


def clipped(
    calls: Sequence[Call], squares_n: Tensor, scaling: Scaling, max_grad_norm: float, *, skip_nonfinite: bool
) -> Clip:
    """Return what is done to gradients whose squares add up to that; where a GradScaler found an Inf, it is a skip."""
    lamb_clip = calls[0].kernels.lamb_clip if calls else eager.lamb_clip
    skips = skip_nonfinite or scaling.found_inf is not None
    if scaling.grad_scale is None:
        told_3 = lamb_clip(squares_n, max_grad_norm, skips)
        return Clip(told_3, told_3)
    scale = torch.as_tensor(scaling.grad_scale, dtype=squares_n.dtype, device=squares_n.device).reshape(())
    told_3 = lamb_clip(squares_n / scale.square(), max_grad_norm, skips)
    norm, factor, skip = told_3.unbind()
    return Clip(told_3, torch.stack([norm, factor / scale, skip]))
