"""The collectives of a step, counted where torch dispatches them, with the bytes that each exchanges."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Collective(NamedTuple):
    """One call of a rank."""

    name: str
    """`all-gather`, `reduce-scatter`, `all-reduce`, or torch's own name of another."""
    ranks: int
    """That take part."""
    payload_bytes: int
    """Of the tensor that is whole before or after the call."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is untyped
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Collective] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.seen.append(_collective(func.name(), args))
        return func(*args, **(kwargs or {}))


def collectives(step: Callable[[], object]) -> list[Collective]:
    """Return the collectives that this rank takes part in during a step, one after the other."""
    recorder = _Recorder()
    with recorder:
        step()
    return recorder.seen


def summed(seen: Iterable[Collective]) -> dict[tuple[str, int], tuple[int, int]]:
    """Return calls and bytes by the name of the collective and the number of ranks."""
    calls, sizes = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for each in seen:
        calls[each.name, each.ranks] += 1
        sizes[each.name, each.ranks] += each.payload_bytes
    return {key: (calls[key], sizes[key]) for key in calls}


def _collective(name: str, args: Any) -> Collective:
    match name:
        case "c10d::_allgather_base_":
            whole, part, *_ = args
            return Collective("all-gather", whole.numel() // part.numel(), whole.nbytes)
        case "c10d::_reduce_scatter_base_":
            part, whole, *_ = args
            return Collective("reduce-scatter", whole.numel() // part.numel(), whole.nbytes)
        case "c10d::allreduce_":
            return Collective("all-reduce", dist.ProcessGroup.unbox(args[1]).size(), _nbytes(args[0]))
    return Collective(name, 0, _nbytes(args[0]))


def _nbytes(value: object) -> int:
    tensors = [value] if isinstance(value, Tensor) else list(value) if isinstance(value, list | tuple) else []
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))
