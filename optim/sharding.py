"""Which part of a tensor this rank holds, and over which process groups its squares are summed.

Shapes: T tensors in one call, n sums of squares; `sums_n` is [n].
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

Groups = tuple[ProcessGroup, ...]
"""Process groups over which a tensor is sharded, one for each mesh dimension; empty if this rank holds all of it."""

FEWEST_RANKS = 2
"""A mesh dimension of fewer ranks shards nothing, so there is nothing to add up over it."""


def local_part(tensor: Tensor) -> Tensor:
    """Return what this rank holds, without a copy; it may be empty."""
    part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part.wait() if isinstance(part, AsyncCollectiveTensor) else part


def shard_groups(name: str, tensor: Tensor) -> Groups:
    """Return the process groups over which the ranks must add up their sums for `tensor`.

    Replicas (HSDP's outer dimension) hold the same numbers and are not summed.

    Raises:
        ValueError: the placement over a mesh dimension is partial, so that no norm can be taken piece by piece, or the
            tensor is sharded over a dimension that has no process group.
    """
    if not isinstance(tensor, DTensor):
        return ()
    return mesh_groups(name, tensor, [dim for dim, each in enumerate(tensor.placements) if _is_sharded(name, each)])


def mesh_groups(name: str, tensor: DTensor, dims: Sequence[int]) -> Groups:
    """Return the process groups of mesh dimensions; those of one rank have none.

    Raises:
        ValueError: a dimension has no process group.
    """
    mesh = tensor.device_mesh
    return tuple(_group(name, mesh, dim) for dim in dims if mesh.size(dim) >= FEWEST_RANKS)


def _group(name: str, mesh: DeviceMesh, dim: int) -> ProcessGroup:
    try:
        return mesh.get_group(dim)
    except (RuntimeError, LookupError, AssertionError) as error:
        raise ValueError(
            f"parameter {name!r} lies on dimension {dim} of {mesh}, which has no process group: "
            "build the mesh with init_device_mesh, and keep its groups for as long as the optimizer is used"
        ) from error


def _is_sharded(name: str, placement: Placement) -> bool:
    if isinstance(placement, Shard | _StridedShard):  # FSDP2 over tensor parallelism makes strided shards
        return True
    if isinstance(placement, Replicate):
        return False
    raise ValueError(
        f"parameter {name!r} is placed {placement!r} on its mesh; Lamb needs Shard or Replicate: "
        "redistribute it, e.g. parameter.redistribute(placements=[Replicate()]), before the optimizer is built"
    )


def sum_over_shards(sums: Sequence[Tensor], groups: Sequence[Groups]) -> list[Tensor]:
    """Return the sums of full tensors: `sums[i]`, [..., T_i], is added up over `groups[i]`.

    Tensors with the same groups share one collective for each of their mesh dimensions, so one mesh costs one.
    """
    full = list(sums)
    for key in distinct(groups):
        chosen = [i for i, each in enumerate(groups) if each == key]
        joined = all_reduce(_joined([sums[i] for i in chosen]), key)  # [..., T of all chosen]
        parts = torch.split(joined, [sums[i].shape[-1] for i in chosen], dim=-1)
        for i, part in zip(chosen, parts, strict=True):
            full[i] = part
    return full


def total_over_shards(squares: Sequence[Tensor], groups: Sequence[Groups]) -> Tensor:
    """Return numbers, [n], that add up to the sum over all tensors; a tensor that is not sharded is added once.

    `squares[i]`, [T_i], are this rank's sums for tensors that are sharded over `groups[i]`. An Inf or NaN on any
    rank makes every rank's total Inf or NaN, if the widest groups hold all ranks; replicas are assumed to agree.
    """
    totals: list[Tensor] = []
    for key in [(), *sorted(distinct(groups), key=_width)]:  # the widest last, so that all ranks learn of any NaN
        own = [each for each, its_groups in zip(squares, groups, strict=True) if its_groups == key]
        if not own:
            continue
        sums_n = _joined(own)
        if key:
            sums_n = sums_n.sum().view(1)
            if totals:  # 0 · total is NaN where this rank alone has met an Inf or NaN, and 0 otherwise
                sums_n = sums_n + 0 * torch.cat(totals).sum()
            sums_n = all_reduce(sums_n, key)
        totals.append(sums_n)
    return _joined(totals)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the last dimension; a single tensor is returned as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim=-1)


def all_reduce(tensor: Tensor, groups: Groups) -> Tensor:
    """Add `tensor` up in place over each group in turn."""
    for group in groups:
        dist.all_reduce(tensor, group=group)
    return tensor


def _width(groups: Groups) -> int:
    return math.prod(group.size() for group in groups)


def distinct(groups: Sequence[Groups]) -> list[Groups]:
    """Return the different non-empty entries in order of first appearance, which is the same on every rank."""
    return [key for key in dict.fromkeys(groups) if key]
