"""Whether tensors are still of the kinds that a call was built of, although no reference keeps the old ones alive.

A kind is type, dtype, device, layout, shape and strides, and for a DTensor its placements too. So what `tensor.data =
other` does between two steps is noticed, while another tensor of the same kind may take its place.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class Guard(Protocol):
    """The kinds of plain tensors."""

    def check(self, *tensors: Any) -> bool:
        """Return whether these are tensors of the same kinds, in the same order."""


class Compared:
    """A guard in Python; what torch.compile has in C++ for its own guards takes a fifth of the time."""

    def __init__(self, *tensors: Tensor) -> None:
        self._properties = [*_properties(tensors)]

    def check(self, *tensors: Any) -> bool:
        """Return whether these are tensors of the same kinds, in the same order."""
        return all(map(operator.eq, _properties(tensors), self._properties))


_KIND = operator.attrgetter("layout", "dtype", "device", "shape")


def _properties(tensors: Sequence[Tensor]) -> Iterator[list[object]]:
    """Yield what makes up the kinds; types and layouts come first, as only strided tensors have the rest."""
    yield [*map(type, tensors)]
    yield [*map(_KIND, tensors)]
    yield [*map(Tensor.stride, tensors)]


def _fastest() -> Callable[..., Guard]:
    """Return what makes a guard; torch's own is not public, so it is tried before it is relied on."""
    try:
        from torch._C._dynamo.guards import TensorGuards

        make: Callable[..., Guard] = functools.partial(TensorGuards, dynamic_dims_sizes=None, dynamic_dims_strides=None)
        tensor, other = (torch.empty(size, device="cpu") for size in (1, 2))
        return make if make(tensor).check(tensor) and not make(tensor).check(other) else Compared
    except (ImportError, TypeError):
        return Compared


guard: Callable[..., Guard] = _fastest()


class Kinds:
    """The kinds of a call's tensors, which are given as columns of T tensors."""

    def __init__(self, columns: Sequence[list[Tensor]]) -> None:
        self._placed = [*map(_placed, columns)] if any(DTensor in map(type, column) for column in columns) else None
        self._guard = guard(*[part for column in columns for part in parts_of(column)])

    def parts_of(self, columns: Sequence[list[Any]]) -> Sequence[list[Tensor]] | None:
        """Return what this rank holds of the tensors that stand in the columns now; None if a kind has changed."""
        if self._placed is not None:
            if [*map(_placed, columns)] != self._placed:
                return None
            columns = [*map(parts_of, columns)]
        return columns if self._guard.check(*itertools.chain.from_iterable(columns)) else None


def _placed(tensors: list[Any]) -> tuple[list[type], list[object]]:
    return [*map(type, tensors)], [getattr(tensor, "_spec", None) for tensor in tensors]


def parts_of(tensors: list[Tensor]) -> list[Tensor]:
    """Return what this rank holds; `to_local` would take fifty times as long."""
    return [tensor._local_tensor if type(tensor) is DTensor else tensor for tensor in tensors]  # noqa: SLF001
