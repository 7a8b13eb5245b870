"""Gradients with the placements and strides of their parameters; tensor parallelism may give them others.

The gradient of an embedding that is sharded by rows is replicated, and that of a norm under sequence parallelism is a
partial sum on each rank.

Shapes: n elements of one tensor or of several; `flat_n` is [n].
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate

from optim.kernels.operands import laid_out_like
from optim.sharding import Groups, all_reduce, local_part, mesh_groups


def placed_gradients(names: Sequence[str], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients, each with the placements and strides of its parameter; the user's own stay as they are.

    Partial sums over the same process groups share one collective for each mesh dimension. `check_gradient` has
    accepted all gradients, and the ranks must agree on their placements.
    """
    grads = [cast(Tensor, parameter.grad) for parameter in parameters]
    moved = [i for i, each in enumerate(parameters) if isinstance(each, DTensor) and _is_elsewhere(each)]
    summed = _summed([names[i] for i in moved], [cast(DTensor, grads[i]) for i in moved]) if moved else []
    for i, grad in zip(moved, summed, strict=True):
        parameter = cast(DTensor, parameters[i])
        grads[i] = grad.redistribute(parameter.device_mesh, parameter.placements)
    return [laid_out_like(parameter, grad) for parameter, grad in zip(parameters, grads, strict=True)]


def _is_elsewhere(parameter: DTensor) -> bool:
    return cast(DTensor, parameter.grad).placements != parameter.placements


def _summed(names: Sequence[str], grads: Sequence[DTensor]) -> list[DTensor]:
    """Return the gradients with partial sums added up, so that they are replicated."""
    calls: dict[tuple[Groups, torch.dtype], list[int]] = {}
    for i, (name, grad) in enumerate(zip(names, grads, strict=True)):
        calls.setdefault((mesh_groups(name, grad, _partial_dims(grad)), grad.dtype), []).append(i)
    summed = list(grads)
    for (groups, _), chosen in calls.items():
        if not groups:
            continue
        flat_n = torch.cat([local_part(grads[i]).reshape(-1) for i in chosen])
        parts = torch.split(all_reduce(flat_n, groups), [local_part(grads[i]).numel() for i in chosen])
        for i, part in zip(chosen, parts, strict=True):
            summed[i] = _replicated(grads[i], part)
    return summed


def _partial_dims(grad: DTensor) -> list[int]:
    """Return the mesh dimensions over which ranks hold terms of a sum; other partial placements are left to torch."""
    return [dim for dim, placement in enumerate(grad.placements) if placement == Partial("sum")]


def _replicated(grad: DTensor, flat_n: Tensor) -> DTensor:
    """Return `grad` with this rank's elements `flat_n`, replicated where it was a partial sum."""
    dims = _partial_dims(grad)
    placements = [Replicate() if dim in dims else placement for dim, placement in enumerate(grad.placements)]
    part = flat_n.view(local_part(grad).shape)
    return DTensor.from_local(
        part, grad.device_mesh, placements, run_check=False, shape=grad.shape, stride=grad.stride()
    )
