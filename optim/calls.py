"""Which tensors one call of an operator takes together.

Calls are built once, and kept until tensors, groups or placements change.
"""

import math
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor

from .kernels.operands import Memory, Operand, Operands
from .kernels.operators import Kernels
from .kernels.settings import Settings, table
from .kernels.uploads import resident
from .sharding import Groups, local_part

Pick = Callable[[Operand], Kernels]
"""Says who steps a tensor."""

_ABSENT = object()
"""Stands for an entry that was removed; None is what the reference to a tensor that is gone returns."""

_STATE = ("exp_avg", "exp_avg_sq", "step")
_OPTIONAL = ("master", "exp_avg_scale", "exp_avg_sq_scale")


class Step(NamedTuple):
    """What a step finds in its optimizer."""

    groups: Sequence[Mapping[str, Any]]
    state: Mapping[Any, Mapping[str, Any]]
    settings: list[Settings]
    """Of each group."""
    pick: Pick


class Ready(NamedTuple):
    """A tensor that has a gradient, with what a step needs beside it."""

    group: int
    """Number of its parameter group."""
    name: str
    parameter: Tensor
    grad: Tensor
    """Placed as the parameter is."""
    groups: Groups
    """The process groups over which it is sharded."""
    state: Mapping[str, Any]

    def operand(self) -> Operand:
        """Return what this rank holds of it."""
        own = local_part(self.parameter)
        state = {key: local_part(self.state[key]) for key in (*_STATE, *_OPTIONAL) if key in self.state}
        return Operand(
            state.get("master", own),
            local_part(self.grad),
            state["exp_avg"],
            state["exp_avg_sq"],
            state["step"],
            own if "master" in state else None,
            state.get("exp_avg_scale"),
            state.get("exp_avg_sq_scale"),
        )


class Call(NamedTuple):
    """Tensors of one step that share backend, dtypes and shard groups. T = their number."""

    kernels: Kernels
    groups: Groups
    names: list[str]
    operands: Operands
    lr: Tensor
    """Learning rates, float64 [T] on the device."""


def settings_of(group: Mapping[str, Any], *, bias_correction: bool, grad_averaging: bool) -> Settings:
    """Return the settings that all tensors of a parameter group have."""
    beta1, beta2 = group["betas"]
    adapted = group["layer_adaptation"]
    weight_low, weight_high = group["weight_norm_bounds"] or (0.0, math.inf)
    ratio_low, ratio_high = group["trust_ratio_bounds"] or (0.0, math.inf)
    return Settings(
        beta1,
        beta2,
        1 - beta1 if grad_averaging else 1.0,
        group["eps"],
        group["weight_decay"],
        weight_low,
        weight_high,
        ratio_low,
        ratio_high,
        bias_correction,
        group["weight_decay"] != 0 if adapted == "decayed" else adapted,
    )


class Calls:
    """The calls of one optimizer's steps.

    Between steps it keeps no gradient, moment or master alive, so that these can be freed or moved elsewhere. Of them
    it holds weak references, and the properties that decide which call takes a tensor.
    """

    def __init__(self) -> None:
        self._captured: list[object] = []
        self._memories: dict[object, Memory] = {}
        self._kept: list[_Kept] = []
        self._seen: _Seen | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Calls, ()  # a copy of the optimizer has other tensors

    def unclipped(self, device: torch.device) -> Tensor:
        """Return what `lamb_clip` does where nobody asks for the norm."""

        def make() -> Tensor:
            return torch.tensor([math.nan, 1.0, 0.0], dtype=torch.float64, device=device)

        return self._memory(None).recall("unclipped", device, make)

    def kept(self, step: Step) -> list[Call] | None:
        """Return the calls of the last step with the present tensors, or None if they must be built anew.

        This is what an untouched step costs the host: a few lookups for each tensor.
        """
        parameters = [parameter for group in step.groups for parameter in group["params"]]
        grads = [parameter.grad for parameter in parameters]
        if self._seen is None or not self._seen.is_like(_Seen.of(step, parameters, grads)):
            return None
        entries = list(step.state.values())
        calls = []
        for kept in self._kept:
            operands = kept.operands(parameters, grads, entries, step)
            if operands is None:
                return None
            calls.append(kept.call(operands, step))
        return calls

    def built(self, step: Step, ready: Sequence[Ready]) -> list[Call]:
        """Return calls for tensors whose state is there, and keep what the next steps need of them."""
        alike: dict[tuple[object, ...], list[tuple[Ready, Operand]]] = {}
        for each in ready:
            operand = each.operand()
            alike.setdefault((operand.dtypes, each.groups, step.pick(operand)), []).append((each, operand))
        self._memories = {key: self._memory(key) for key in (None, *alike)}  # those of calls that are gone go too
        parameters = [parameter for group in step.groups for parameter in group["params"]]
        self._seen, self._kept, calls = _Seen.of(step, parameters, [p.grad for p in parameters]), [], []
        for key, pairs in alike.items():
            tensors, operands = (list(column) for column in zip(*pairs, strict=True))
            kept = _Kept(tensors, self._seen.places(step, tensors), step.pick(operands[0]), self._memories[key])
            calls.append(kept.call(Operands.of(operands, kept.settings(step), kept.memory), step))
            self._kept.append(kept)
        if not all(map(_is_lasting, ready)):
            self._seen = None
        return calls

    def _memory(self, key: object) -> Memory:
        return self._memories.setdefault(key, Memory(self._captured))


class _Seen(NamedTuple):
    """What decides for all tensors together whether calls can be kept."""

    parameters: list[Tensor]
    has_grad: list[bool]
    keys: list[object]
    """Of the optimizer's state, in its order."""
    sizes: list[int]
    """Number of parameters in each group."""
    names: list[object]
    """Of each group, as its parameters are named."""
    pick: Pick

    @classmethod
    def of(cls, step: Step, parameters: list[Tensor], grads: list[Tensor | None]) -> "_Seen":
        """Return it for all parameters of the groups."""
        sizes = [len(group["params"]) for group in step.groups]
        names: list[object] = [tuple(group.get("param_names") or ()) for group in step.groups]
        return cls(parameters, [grad is not None for grad in grads], list(step.state), sizes, names, step.pick)

    def is_like(self, other: "_Seen") -> bool:
        """Return whether all is as it was; tensors are compared by identity."""
        return (
            self.pick is other.pick
            and _are_same(self.parameters, other.parameters)
            and _are_same(self.keys, other.keys)
            and self.has_grad == other.has_grad
            and self.sizes == other.sizes
            and self.names == other.names
        )

    def places(self, step: Step, ready: Sequence[Ready]) -> list[tuple[int, int]]:
        """Return the number of each tensor among all parameters, and in the optimizer's state."""
        numbers = {id(parameter): number for number, parameter in enumerate(self.parameters)}
        entries = {id(key): number for number, key in enumerate(step.state)}
        return [(numbers[id(each.parameter)], entries[id(each.parameter)]) for each in ready]


class _Kept:
    """A call without its tensors, and how to find these again."""

    def __init__(self, ready: Sequence[Ready], places: list[tuple[int, int]], kernels: Kernels, memory: Memory) -> None:
        self.memory = memory
        self._kernels = kernels
        self._groups = ready[0].groups
        self._names = [each.name for each in ready]
        self._group_numbers = [each.group for each in ready]
        self._numbers, self._entries = (list(column) for column in zip(*places, strict=True))
        self._keys = [key for key in (*_STATE, *_OPTIONAL) if key in ready[0].state]
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
        state = {key: [entry.get(key, _ABSENT) for entry in states] for key in self._keys}
        for (key, now), before, formats in zip(state.items(), self._state, self._formats, strict=True):
            if not _are_same(now, [reference() for reference in before]) or _formats(key, now) != formats:
                return None
        for tensors, look in zip((own, grads), self._looks, strict=True):
            if not all(now == before for now, before in zip(_look(tensors), look, strict=True)):
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
        """Return the call in this step."""
        return Call(self._kernels, self._groups, self._names, operands, self._rates(operands.device, step))

    def settings(self, step: Step) -> Tensor:
        """Return the settings, float64 [T, 11] on the host: the same tensor for as long as they are the same."""
        rows, numbers = step.settings, self._group_numbers
        return self.memory.recall("rows", (rows, numbers), lambda: table([rows[number] for number in numbers]))

    def _rates(self, device: torch.device, step: Step) -> Tensor:
        """Return the learning rates, float64 [T] on the device; no host waits for it."""
        rates, numbers = [group["lr"] for group in step.groups], self._group_numbers
        if not any(isinstance(rate, Tensor) for rate in rates):
            return self._resident("rates", rates, device, lambda: [float(rates[number]) for number in numbers])
        fixed = [0.0 if isinstance(rate, Tensor) else float(rate) for rate in rates]
        fixed_G = self._resident("fixed rates", fixed, device, lambda: fixed)
        ways = [rate if isinstance(rate, Tensor) else fixed_G[i] for i, rate in enumerate(rates)]
        rates_G = torch.stack([way.to(device, torch.float64).reshape(()) for way in ways])
        return rates_G[self._resident("groups", None, device, lambda: numbers)]

    def _resident(
        self, name: str, key: object, device: torch.device, make: Callable[[], list[int] | list[float]]
    ) -> Tensor:
        """Return numbers on the device, integers in int64 and others in float64."""

        def made() -> Tensor:
            numbers = make()
            dtype = torch.int64 if isinstance(numbers[0], int) else torch.float64
            return torch.tensor(numbers, dtype=dtype, device="cpu")

        return resident(self.memory, name, (key, self._group_numbers), device, made)


_PROPERTIES = operator.attrgetter("dtype", "device", "layout", "shape")


def _look(tensors: list[Tensor]) -> Iterator[list[object]]:
    """Yield what decides which call takes tensors; what is only there for strided ones comes after their layout."""
    parts = _parts(tensors)
    yield [*map(type, tensors)]
    if parts is not tensors:
        yield [*map(type, parts)]
        yield [getattr(tensor, "_spec", None) for tensor in tensors]
    yield [*map(_PROPERTIES, parts)]
    yield [*map(Tensor.is_contiguous, parts)]


def _formats(key: str, tensors: list[Tensor]) -> list[object]:
    """Return what `tensor.data = other` changes where moments and masters are moved, narrowed, strided or resized."""
    if key == "step":
        return []
    parts = _parts(tensors)
    return [*map(_PROPERTIES, parts), *map(Tensor.is_contiguous, parts)]


def _parts(tensors: list[Tensor]) -> list[Tensor]:
    """Return what this rank holds; `to_local` would take fifty times as long."""
    if DTensor not in set(map(type, tensors)):
        return tensors
    return [tensor._local_tensor if type(tensor) is DTensor else tensor for tensor in tensors]  # noqa: SLF001


def _is_lasting(ready: Ready) -> bool:
    """Return whether the next step finds the same tensors: none that was made, or waited for, for this one alone."""
    tensors = ready.parameter, ready.grad, *ready.state.values()
    return ready.grad is ready.parameter.grad and not any(
        isinstance(part, AsyncCollectiveTensor) for part in _parts([t for t in tensors if isinstance(t, Tensor)])
    )


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
