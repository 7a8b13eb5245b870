"""One call of a step, and how the next step finds its tensors again, although no reference keeps them alive.

Shapes: T tensors in the call, G parameter groups; `rates_G` is [G].
"""

import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor

from .kernels.operands import Memory, Operands
from .kernels.operators import Kernels
from .kernels.settings import float_of, table
from .kernels.uploads import resident
from .sharding import Groups
from .step import OPTIONAL, STATE, Pick, Ready, Step


class Call(NamedTuple):
    """Tensors of one step that share backend, dtypes and shard groups."""

    kernels: Kernels
    groups: Groups
    names: list[str]
    operands: Operands
    lr: Tensor
    """Learning rates, float64 [T] on the device."""


class Seen(NamedTuple):
    """What must be unchanged, for all tensors together, so that the calls can be used again."""

    parameters: list[Tensor]
    has_grad: list[bool]
    keys: list[object]
    """The keys of the optimizer's state, in its order."""
    sizes: list[int]
    """Number of parameters in each group."""
    names: list[object]
    """The names of each group's parameters, and how their moments are stored."""
    pick: Pick

    @classmethod
    def of(cls, step: Step, parameters: list[Tensor], grads: list[Tensor | None]) -> "Seen":
        """Look at all parameters of the groups."""
        sizes = [len(group["params"]) for group in step.groups]
        names: list[object] = [(*(group.get("param_names") or ()), group.get("moments")) for group in step.groups]
        return cls(parameters, [grad is not None for grad in grads], list(step.state), sizes, names, step.pick)

    def is_like(self, other: "Seen") -> bool:
        """Return whether everything is as it was; tensors are compared by identity."""
        return (
            self.pick is other.pick
            and _are_same(self.parameters, other.parameters)
            and _are_same(self.keys, other.keys)
            and self.has_grad == other.has_grad
            and self.sizes == other.sizes
            and self.names == other.names
        )

    def places(self, step: Step, ready: Sequence[Ready]) -> list[tuple[int, int]]:
        """Return the position of each tensor among all parameters, and in the optimizer's state."""
        numbers = {id(parameter): number for number, parameter in enumerate(self.parameters)}
        entries = {id(key): number for number, key in enumerate(step.state)}
        return [(numbers[id(each.parameter)], entries[id(each.parameter)]) for each in ready]


class Remembered:
    """A call without its tensors, and how to find these again."""

    def __init__(self, ready: Sequence[Ready], places: list[tuple[int, int]], kernels: Kernels, memory: Memory) -> None:
        self.memory = memory
        self._kernels = kernels
        self._groups = ready[0].groups
        self._names = [each.name for each in ready]
        self._group_numbers = [each.group for each in ready]
        self._numbers, self._entries = (list(column) for column in zip(*places, strict=True))
        self._keys = [key for key in (*STATE, *OPTIONAL) if key in ready[0].state]
        self._counts = [len(each.state) for each in ready]
        state = {key: [each.state[key] for each in ready] for key in self._keys}
        self._state = [[weakref.ref(tensor) for tensor in tensors] for tensors in state.values()]
        self._formats = [_formats(key, tensors) for key, tensors in state.items()]
        self._looks = [[*_look(tensors)] for tensors in ([r.parameter for r in ready], [r.grad for r in ready])]

    def operands(
        self, parameters: list[Tensor], all_grads: list[Tensor | None], entries: list[Mapping[str, Any]], step: Step
    ) -> Operands | None:
        """Return the present tensors, or None if one of them is no longer what it was."""
        own = [parameters[number] for number in self._numbers]
        grads = cast(list[Tensor], [all_grads[number] for number in self._numbers])
        states = [entries[number] for number in self._entries]
        if [*map(len, states)] != self._counts:  # a master, say, was added
            return None
        try:
            state = {key: [*map(operator.itemgetter(key), states)] for key in self._keys}
        except KeyError:  # an entry was removed
            return None
        for (key, now), before, formats in zip(state.items(), self._state, self._formats, strict=True):
            if not all(map(operator.is_not, now, repeat(None))):  # a reference to a tensor that is gone returns None
                return None
            if not _are_same(now, [*map(operator.call, before)]) or _formats(key, now) != formats:
                return None
        for tensors, look in zip((own, grads), self._looks, strict=True):
            if not all(map(operator.eq, _look(tensors), look)):
                return None
        parts = {key: _parts(tensors) for key, tensors in state.items()}
        weights = _parts(own)
        return Operands(
            parts.get("master", weights),
            _parts(grads),
            parts["exp_avg"],
            parts["exp_avg_sq"],
            parts["step"],
            weights if "master" in parts else [],
            parts.get("exp_avg_scale", []),
            parts.get("exp_avg_sq_scale", []),
            self.settings(step),
            self.memory,
        )

    def call(self, operands: Operands, step: Step) -> Call:
        """Return the call for this step."""
        return Call(self._kernels, self._groups, self._names, operands, self._rates(operands.device, step))

    def settings(self, step: Step) -> Tensor:
        """Return the settings, float64 [T, 11] on the host: the same tensor as long as no setting changes."""
        rows, numbers = step.settings, self._group_numbers
        return self.memory.recall("rows", (rows, numbers), lambda: table([rows[number] for number in numbers]))

    def _rates(self, device: torch.device, step: Step) -> Tensor:
        """Return the learning rates, float64 [T] on the device; the host does not wait for them."""
        rates, numbers = [group["lr"] for group in step.groups], self._group_numbers
        if not any(isinstance(rate, Tensor) for rate in rates):
            return self._resident("rates", rates, device, lambda: [float(rates[number]) for number in numbers])
        fixed = [0.0 if isinstance(rate, Tensor) else float(rate) for rate in rates]
        fixed_rates_G = self._resident("fixed rates", fixed, device, lambda: fixed)
        each = [rate if isinstance(rate, Tensor) else fixed_rates_G[i] for i, rate in enumerate(rates)]
        rates_G = torch.stack([rate.to(device, float_of(device)).reshape(()) for rate in each])
        return rates_G[self._resident("groups", None, device, lambda: numbers)]

    def _resident(
        self, name: str, key: object, device: torch.device, make: Callable[[], list[int] | list[float]]
    ) -> Tensor:
        """Return numbers on the device, integers in int64 and others in float64, or what the device has instead."""

        def made() -> Tensor:
            numbers = make()
            dtype = torch.int64 if isinstance(numbers[0], int) else float_of(device)
            return torch.tensor(numbers, dtype=dtype, device="cpu")

        return resident(self.memory, name, (key, self._group_numbers), device, made)


_PROPERTIES = operator.attrgetter("dtype", "device", "layout", "shape")


def _look(tensors: list[Tensor]) -> Iterator[list[object]]:
    """Yield what decides which call takes the tensors; layouts come first, as only strided tensors have the rest."""
    parts = _parts(tensors)
    yield [*map(type, tensors)]
    if parts is not tensors:
        yield [*map(type, parts)]
        yield [getattr(tensor, "_spec", None) for tensor in tensors]
    yield [*map(_PROPERTIES, parts)]
    yield _strides(parts)


def _formats(key: str, tensors: list[Tensor]) -> list[object]:
    """Return what changes when `tensor.data = other` moves, narrows, restrides or resizes a moment or a master."""
    if key == "step":
        return []
    parts = _parts(tensors)
    return [*map(_PROPERTIES, parts), *_strides(parts)]


def _strides(parts: list[Tensor]) -> list[object]:
    """Return what changes when a tensor is laid out anew; strides are asked for only where one is not contiguous."""
    contiguous = [*map(Tensor.is_contiguous, parts)]
    return [*contiguous] if all(contiguous) else [*map(Tensor.stride, parts)]


def _parts(tensors: list[Tensor]) -> list[Tensor]:
    """Return what this rank holds; `to_local` would take fifty times as long."""
    if DTensor not in set(map(type, tensors)):
        return tensors
    return [tensor._local_tensor if type(tensor) is DTensor else tensor for tensor in tensors]  # noqa: SLF001


def is_lasting(ready: Ready) -> bool:
    """Return whether the next step will find the same tensors: none was made, or waited for, for this step alone."""
    tensors = ready.parameter, ready.grad, *ready.state.values()
    return ready.grad is ready.parameter.grad and not any(
        isinstance(part, AsyncCollectiveTensor) for part in _parts([t for t in tensors if isinstance(t, Tensor)])
    )


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
