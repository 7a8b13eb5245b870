"""Which tensors of a call a kernel takes, and which plain PyTorch."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import eager

LISTS = ("tensors", "grads", "weights", "copies", "exp_avgs", "exp_avg_sqs", "steps")
"""Arguments that have an entry for each tensor; those that a call lacks, or that are empty, do not count."""

Operator = Callable[..., Any]


class Backend(NamedTuple):
    """Who computes the operators on a device, "fused" or "eager", and why."""

    name: str
    reason: str


def or_eager(is_known: Callable[[dict[str, Any]], bool]) -> Callable[[Operator], Operator]:
    """Give an operator the tensors that its kernel can read, and its namesake in `eager` the others.

    `is_known` is asked whether there is a kernel for the dtypes of a call, of which the first tensors stand for all.
    """

    def decorate(fused: Operator) -> Operator:
        plain: Operator = getattr(eager, fused.__name__)
        names = tuple(inspect.signature(fused).parameters)

        @functools.wraps(fused)
        def operator(*arguments: Any) -> Any:
            named = dict(zip(names, arguments, strict=True))
            fits = _fits(named, is_known)
            if all(fits):
                return fused(*arguments)
            if not any(fits):
                return plain(*arguments)
            chosen = [[i for i, fit in enumerate(fits) if fit is wanted] for wanted in (True, False)]
            parts = [
                compute(*(_pick(name, each, numbers, len(fits)) for name, each in named.items()))
                for compute, numbers in zip((fused, plain), chosen, strict=True)
            ]
            return None if parts[0] is None else _in_order(parts, chosen)

        return operator

    return decorate


def _fits(arguments: dict[str, Any], is_known: Callable[[dict[str, Any]], bool]) -> list[bool]:
    """Return for each tensor whether the kernel can read it and all that belongs to it."""
    lists = [arguments[name] for name in LISTS if arguments.get(name)]
    known = is_known(arguments)
    if not lists or not known:
        return [known] * max(1, *map(len, lists or [()]))
    return [all(column) for column in zip(*map(_alike, lists), strict=True)]


def _alike(tensors: list[Tensor]) -> list[bool]:
    dtype = tensors[0].dtype
    return [tensor.dtype is dtype and tensor.is_contiguous() for tensor in tensors]


def _pick(name: str, entries: Any, numbers: Sequence[int], count: int) -> Any:
    """Return the entries of some of the `count` tensors of a call, without asking the device."""
    if name == "clip" or len(entries) == 0:
        return entries
    if isinstance(entries, Tensor):
        return torch.stack([entries[i] for i in numbers])
    return [entries[first + i] for first in range(0, len(entries), count) for i in numbers]


def _in_order(parts: Sequence[Tensor], chosen: Sequence[Sequence[int]]) -> Tensor:
    """Return the columns of both parts as the tensors stood in the call."""
    columns = {
        i: column
        for part, numbers in zip(parts, chosen, strict=True)
        for i, column in zip(numbers, part.unbind(-1), strict=True)
    }
    return torch.stack([columns[i] for i in range(len(columns))], dim=-1)
