"""One call of a step, and how the next step finds its tensors again, although no reference keeps them alive.

Shapes: T tensors in the call, G parameter groups; `rates_G` is [G].
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor

from optim.kernels.operands import Memory, Operands
from optim.kernels.operators import Kernels
from optim.kernels.settings import float_of, table
from optim.kernels.uploads import resident
from optim.sharding import Groups, local_part

from .kinds import Kinds, parts_of
from .ready import OPTIONAL, STATE, Pick, Ready, Step


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
        self._rows_T = torch.tensor(self._group_numbers, dtype=torch.int64, device="cpu")
        self._numbers, self._entries = (list(column) for column in zip(*places, strict=True))
        self._keys = [key for key in (*STATE, *OPTIONAL) if key in ready[0].state]
        self._counts = [len(each.state) for each in ready]
        # They hold as long as the kinds do, of which shapes are a part.
        self._numels = tuple([local_part(each.parameter).numel() for each in ready])
        state = [[each.state[key] for each in ready] for key in self._keys]
        self._kinds = Kinds([[each.parameter for each in ready], [each.grad for each in ready], *state])

    def operands(
        self, parameters: list[Tensor], all_grads: list[Tensor | None], entries: list[Mapping[str, Any]], step: Step
    ) -> Operands | None:
        """Return the present tensors, or None if one of them is no longer what it was."""
        own = [parameters[number] for number in self._numbers]
        grads = [all_grads[number] for number in self._numbers]
        states = [entries[number] for number in self._entries]
        if [*map(len, states)] != self._counts:  # a master, say, was added
            return None
        try:
            state = [[*map(operator.itemgetter(key), states)] for key in self._keys]
        except KeyError:  # an entry was removed
            return None
        parts = self._kinds.parts_of([own, grads, *state])
        if parts is None:
            return None
        weights, local_grads, *local_state = parts
        held = dict(zip(self._keys, local_state, strict=True))
        operands = Operands(
            held.get("master", weights),
            local_grads,
            held["exp_avg"],
            held["exp_avg_sq"],
            held["step"],
            weights if "master" in held else [],
            held.get("exp_avg_scale", []),
            held.get("exp_avg_sq_scale", []),
            self.settings(step),
            self.memory,
        )
        operands.numels = self._numels
        return operands

    def call(self, operands: Operands, step: Step) -> Call:
        """Return the call for this step."""
        return Call(self._kernels, self._groups, self._names, operands, self._rates(operands.device, step))

    def settings(self, step: Step) -> Tensor:
        """Return the settings, float64 [T, 11] on the host: the same tensor as long as no setting changes."""
        rows, numbers = step.settings, self._group_numbers
        return self.memory.recall("rows", (rows, numbers), lambda: table([rows[number] for number in numbers]))

    def _rates(self, device: torch.device, step: Step) -> Tensor:
        """Return the learning rates, float64 [T] on the device; the host does not wait for them."""
        rates = [group["lr"] for group in step.groups]
        numbers = [0.0 if isinstance(rate, Tensor) else float(rate) for rate in rates]
        dtype = float_of(device)
        if not any(isinstance(rate, Tensor) for rate in rates):
            return self._resident("rates", numbers, device, lambda: _host(numbers, dtype)[self._rows_T])
        fixed_rates_G = self._resident("fixed rates", numbers, device, lambda: _host(numbers, dtype))
        each = [rate if isinstance(rate, Tensor) else fixed_rates_G[i] for i, rate in enumerate(rates)]
        rates_G = torch.stack([rate.to(device, dtype).reshape(()) for rate in each])
        return rates_G[self._resident("groups", None, device, lambda: self._rows_T)]

    def _resident(self, name: str, key: object, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
        return resident(self.memory, name, (key, self._group_numbers), device, make)


def _host(numbers: list[float], dtype: torch.dtype) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device="cpu")


def is_lasting(ready: Ready) -> bool:
    """Return whether the next step will find the same tensors: none was made, or waited for, for this step alone."""
    tensors = ready.parameter, ready.grad, *ready.state.values()
    return ready.grad is ready.parameter.grad and not any(
        isinstance(part, AsyncCollectiveTensor) for part in parts_of([t for t in tensors if isinstance(t, Tensor)])
    )


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
