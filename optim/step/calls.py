"""Which tensors one call of an operator takes together.

Calls are built once, and remembered until tensors, groups or placements change.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from optim.kernels.operands import Dtypes, Memory, Operand, Operands
from optim.kernels.operators import Kernels
from optim.kernels.settings import float_of
from optim.sharding import Groups

from .ready import Ready, Step
from .remembered import Call, Remembered, Seen, is_lasting


class Calls:
    """The calls of one optimizer's steps.

    Between steps it does not keep gradients, moments or masters alive, so these can be freed or moved elsewhere. It
    knows of what kind they were, which decides which call takes a tensor.
    """

    def __init__(self) -> None:
        self._captured: list[object] = []
        self._memories: dict[object, Memory] = {}
        self._remembered: list[Remembered] = []
        self._seen: Seen | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Calls, ()  # a copy of the optimizer has other tensors

    def unclipped(self, device: torch.device) -> Tensor:
        """Return what stands for `lamb_clip`'s result where nobody asks for the norm, float64 [3]."""

        def make() -> Tensor:
            return torch.tensor([math.nan, 1.0, 0.0], dtype=float_of(device), device=device)

        return self._memory(None).recall("unclipped", device, make)

    def remembered(self, step: Step) -> list[Call] | None:
        """Return the calls of the last step with the present tensors, or None if they must be built anew.

        This is what an untouched step costs the host: a few lookups for each tensor.
        """
        parameters = [parameter for group in step.groups for parameter in group["params"]]
        grads = [parameter.grad for parameter in parameters]
        if self._seen is None or not self._seen.is_like(Seen.of(step, parameters, grads)):
            return None
        entries = list(step.state.values())
        calls = []
        for each in self._remembered:
            operands = each.operands(parameters, grads, entries, step)
            if operands is None:
                return None
            calls.append(each.call(operands, step))
        return calls

    def built(self, step: Step, ready: Sequence[Ready]) -> list[Call]:
        """Return calls for tensors whose state is there, and remember what the next steps need of them."""
        alike: dict[tuple[Dtypes, Groups, Kernels], list[tuple[Ready, Operand]]] = {}
        for each in ready:
            operand = each.operand()
            alike.setdefault((operand.dtypes, each.groups, step.pick(operand)), []).append((each, operand))
        self._memories = {key: self._memory(key) for key in (None, *alike)}  # drops those of calls that no longer exist
        parameters = [parameter for group in step.groups for parameter in group["params"]]
        self._seen, self._remembered, calls = Seen.of(step, parameters, [p.grad for p in parameters]), [], []
        for key, pairs in alike.items():
            tensors, operands = (list(column) for column in zip(*pairs, strict=True))
            *_, kernels = key
            made = Remembered(tensors, self._seen.places(step, tensors), kernels, self._memories[key])
            calls.append(made.call(Operands.of(operands, made.settings(step), made.memory), step))
            self._remembered.append(made)
        if not all(map(is_lasting, ready)):
            self._seen = None
        return calls

    def _memory(self, key: object) -> Memory:
        return self._memories.setdefault(key, Memory(self._captured))
