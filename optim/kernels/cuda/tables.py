"""The tables that kernels read: made on the host, and stored on the device in the memory of a call.

Training with stable addresses uploads nothing. Where gradients move, as they do when `zero_grad` frees them, one small
table is uploaded: 8 bytes per tensor.

Shapes: T tensors in the call; `settings_T11` is [T, 11].
"""

import functools
import itertools
import operator
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from optim.kernels.moments import FIRST, SECOND, dynamic_map
from optim.kernels.operands import Operands
from optim.kernels.uploads import resident

from . import places

ALIGNMENT = 16
"""Bytes that a thread reads at a time where every tensor allows it."""

_HOST = torch.device("cpu")  # named explicitly, because the default device may be another
_BETAS = [places.BETA1.value, places.BETA2.value]


class Layout(NamedTuple):
    """How tensors are cut into chunks: the kernels' `layout` int64 [2·T + chunks], on the device."""

    table: Tensor
    chunks: int


class Order(NamedTuple):
    """In which order a step in one launch takes its chunks, and how far it is."""

    items: Tensor
    """int32 [2·chunks], on the device: 2·c is the first pass over chunk c, 2·c + 1 the second."""
    progress: Tensor
    """int64 [1 + T], on the device: how many items were ever taken, and for each tensor how many were ever finished of
    those that its second pass waits for. The kernel counts on from step to step."""


class Addresses(NamedTuple):
    """Where tensors lie: int64 [lists, T] on the device, and whether 16-byte accesses reach them."""

    table: Tensor
    aligned: bool


def layout(operands: Operands, chunk: int) -> Layout:
    """Return how the tensors are cut into chunks of `chunk` elements; a tensor without elements has one, too."""
    numels = operands.numels

    def make() -> Tensor:
        numel_T = torch.tensor(numels, dtype=torch.int64, device=_HOST)
        chunks_T = torch.tensor(_chunks(numels, chunk), dtype=torch.int64, device=_HOST)
        owners = torch.repeat_interleave(torch.arange(len(numels), device=_HOST), chunks_T)
        return torch.cat([numel_T, chunks_T.cumsum(0) - chunks_T, owners])

    # A step in one launch has other chunks than the gradients' norm: each keeps its own.
    table = resident(operands.memory, f"layout in chunks of {chunk}", numels, operands.device, make)
    return Layout(table, len(table) - 2 * len(numels))


def order(operands: Operands, chunk: int, lag: int) -> Order:
    """Return in which order a step takes its chunks, where a second pass lies `lag` items behind the first."""
    numels = operands.numels

    def make() -> Tensor:
        ranges = in_order(_chunks(numels, chunk), lag)
        return torch.cat([torch.arange(*_ends(each), dtype=torch.int32, device=_HOST) for each in ranges])

    def none() -> Tensor:
        return torch.zeros(1 + len(numels), dtype=torch.int64, device=_HOST)

    items = resident(operands.memory, "order", (chunk, numels, lag), operands.device, make)
    return Order(items, resident(operands.memory, "progress", (chunk, numels), operands.device, none))


def in_order(chunks_T: Sequence[int], lag: int) -> Iterator[range]:
    """Yield the items of a step, as `Order` numbers them, for tensors of so many chunks.

    The second pass over a tensor begins `lag` items behind its first one, so that it need not wait for programs that
    are not through with theirs, and goes backwards: what was read last is still in the cache. Tensors that are smaller
    than the cache are read from memory once, and of a larger one what fits.
    """
    first = taken = 0
    waiting: deque[tuple[int, range]] = deque()
    for chunks in chunks_T:
        begin, end = first, first + chunks
        while begin < end:
            if waiting and waiting[0][0] <= taken:
                taken += len(waiting[0][1])
                yield waiting.popleft()[1]
                continue
            part = range(begin, min(end, begin + waiting[0][0] - taken) if waiting else end)
            taken += len(part)
            yield range(2 * part.start, 2 * part.stop, 2)
            begin = part.stop
        waiting.append((taken + lag, range(2 * end - 1, 2 * first - 1, -2)))
        first = end
    yield from (second for _, second in waiting)


def _chunks(numels: Sequence[int], chunk: int) -> list[int]:
    return [max(1, -(-numel // chunk)) for numel in numels]


def _ends(items: range) -> tuple[int, int, int]:
    return items.start, items.stop, items.step


def gradients(operands: Operands) -> Addresses:
    """Return where the gradients lie, int64 [1, T]."""
    return _addresses(operands, "gradients", (operands.grad_addresses,))


def addresses(operands: Operands) -> Addresses:
    """Return where all others lie, int64 [7, T]; the steps are read by scalar accesses, which need no alignment."""
    return _addresses(operands, "addresses", operands.addresses, unaligned=places.STEPS.value)


def _addresses(
    operands: Operands, name: str, rows: tuple[tuple[int, ...], ...], unaligned: int | None = None
) -> Addresses:
    wide = [row for number, row in enumerate(rows) if number != unaligned]

    def are_aligned() -> bool:
        return not any(functools.reduce(operator.or_, row, 0) % ALIGNMENT for row in wide)

    def make() -> Tensor:
        words = array("q", [*itertools.chain.from_iterable(rows)])  # four times as fast as a tensor of nested tuples
        return torch.frombuffer(words, dtype=torch.int64).view(len(rows), -1)

    table = resident(operands.memory, name, rows, operands.device, make)
    return Addresses(table, operands.memory.recall(f"{name} are aligned", rows, are_aligned))


def settings(operands: Operands, device: torch.device) -> Tensor:
    """Return the kernels' settings, float64 [T, 13]."""
    settings_T11 = operands.settings

    def make() -> Tensor:
        corrected_T1 = settings_T11[:, [places.BIAS_CORRECTION.value]] != 0
        logarithms_T2 = torch.where(corrected_T1, settings_T11[:, _BETAS].log(), -torch.inf)
        return torch.cat([settings_T11, logarithms_T2], dim=1)

    return resident(operands.memory, "settings", _Same(settings_T11), device, make)


def maps(operands: Operands) -> Tensor:
    """Return what the codes of 8-bit moments stand for, and what brings each decade to 1, float32 [2·256 + 7]."""

    def make() -> Tensor:
        powers = [10.0 ** (6 - decade) for decade in range(7)]
        own = [dynamic_map(which, _HOST) for which in (FIRST, SECOND)]
        return torch.cat([*own, torch.tensor(powers, dtype=torch.float32, device=_HOST)])

    return resident(operands.memory, "maps", None, operands.device, make)


class _Same:
    """A key that is equal to that of the same object alone; it holds the object, so no other can get its address."""

    def __init__(self, source: object) -> None:
        self._source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._source is self._source

    __hash__ = None  # type: ignore[assignment]
