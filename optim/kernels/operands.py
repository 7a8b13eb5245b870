"""The tensors of one call of an operator, and what a backend has made for them. Shapes: T tensors in the call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")

_PLAIN = (Tensor, torch.nn.Parameter)

Dtypes = tuple[torch.dtype | None, ...]


class Backend(NamedTuple):
    """Who computes the operators on a device, "fused" or "eager", and why."""

    name: str
    reason: str


class Memory:
    """What a backend has made for a call, such as tables and uploads. It is passed again when the call is repeated.

    `captured` holds what a CUDA graph may read at each replay; the list must live as long as the graph.
    """

    def __init__(self, captured: list[object] | None = None) -> None:
        self.captured: list[object] = [] if captured is None else captured
        self._held: dict[str, tuple[object, Any]] = {}

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Memory, ()  # a copy has other tensors

    def recall(self, name: str, key: object, make: Callable[[], Made]) -> Made:
        """Return what was last made under this name, or make it anew if the key has changed."""
        held = self._held.get(name)
        if held is None or held[0] != key:
            held = self._held[name] = (key, make())
        made: Made = held[1]
        return made

    def holds(self, name: str, key: object) -> bool:
        """Return whether `recall` would find something."""
        return name in self._held and self._held[name][0] == key


def is_dense(tensor: Tensor) -> bool:
    """Return whether the elements fill a piece of memory, each place once, in whatever order of dimensions."""
    filled = 1
    for stride, size in sorted(_steps(tensor)):
        if stride != filled:
            return tensor.numel() == 0
        filled *= size
    return True


def lies_like(tensor: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same shape and the same order of elements in memory."""
    return tensor.shape == other.shape and (tensor.numel() == 0 or _steps(tensor) == _steps(other))


def laid_out_like(model: Tensor, tensor: Tensor) -> Tensor:
    """Return a tensor whose elements lie in memory as those of a dense `model` do: itself, or a copy if it must be.

    What is cut over ranks, or of another shape, comes back as it is.
    """
    plain = type(tensor) in _PLAIN and type(model) in _PLAIN and tensor.shape == model.shape
    if not plain or lies_like(tensor, model) or not is_dense(model):
        return tensor
    return torch.empty_like(model, dtype=tensor.dtype).copy_(tensor)


def _steps(tensor: Tensor) -> list[tuple[int, int]]:
    """Return stride and size of each dimension; where the size is 1, the stride means nothing."""
    return [pair for pair in zip(tensor.stride(), tensor.shape, strict=True) if pair[1] != 1]


class Operand(NamedTuple):
    """One tensor of a step with everything that belongs to it, as this rank holds it."""

    weight: Tensor
    """What is updated: the parameter, or its float32 master."""
    grad: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor
    """float32 scalar on the device."""
    copy: Tensor | None = None
    """The half-precision parameter that receives the master's new value."""
    first_scale: Tensor | None = None
    """float32, one for each 256 elements of an 8-bit moment."""
    second_scale: Tensor | None = None

    @property
    def dtypes(self) -> Dtypes:
        """The dtype of each tensor; all operands of a call have the same ones."""
        return tuple([None if tensor is None else tensor.dtype for tensor in self])

    @property
    def lies_flat(self) -> bool:
        """Whether the tensors can be taken as flat memory, element beside element: no kernel needs to know strides.

        They lie so if they are contiguous, or all dense in the same order, such as channels_last or transposed. Narrow
        moments go by the places of contiguous elements.
        """
        if all(tensor is None or tensor.is_contiguous() for tensor in self):
            return True
        shaped = [tensor for tensor in (self.grad, self.exp_avg, self.exp_avg_sq, self.copy) if tensor is not None]
        is_plain = self.exp_avg.dtype is self.exp_avg_sq.dtype is self.weight.dtype
        return is_plain and is_dense(self.weight) and all(lies_like(tensor, self.weight) for tensor in shaped)


@dataclass
class Operands:
    """The tensors of one call: lists of T tensors.

    All lie on one device, and each list has one dtype. A list that a call does not need, or that its tensors do not
    have, is empty. They are valid for one step: nobody replaces lists or tensors once an operator has seen them.
    """

    weights: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    exp_avgs: list[Tensor] = field(default_factory=list)
    exp_avg_sqs: list[Tensor] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    copies: list[Tensor] = field(default_factory=list)
    first_scales: list[Tensor] = field(default_factory=list)
    second_scales: list[Tensor] = field(default_factory=list)
    settings: Tensor = field(default_factory=lambda: torch.empty(0, 11, dtype=torch.float64, device="cpu"))
    """float64 [T, 11] on the host; a row is a `Settings`. Nobody writes to it."""
    memory: Memory = field(default_factory=Memory)

    @classmethod
    def of(cls, operands: list[Operand], settings: Tensor, memory: Memory | None = None) -> "Operands":
        """Return the operands of a call; all must have the same dtypes."""
        columns = zip(*operands, strict=True)
        lists: list[list[Tensor]] = [[tensor for tensor in column if tensor is not None] for column in columns]
        weights, grads, exp_avgs, exp_avg_sqs, steps, copies, *scales = lists
        moments = exp_avgs, exp_avg_sqs, steps
        return cls(weights, grads, *moments, copies, scales[0], scales[1], settings, memory or Memory())

    def __len__(self) -> int:
        return len(self.weights or self.grads)

    def each(self) -> Iterator[Operand]:
        """Yield the operands one by one; the lists of a step must be there."""
        columns: list[list[Any]] = [column or [None] * len(self) for column in self.lists]
        return (Operand(*row) for row in zip(*columns, strict=True))

    @property
    def lists(self) -> tuple[list[Tensor], ...]:
        """The lists in the order of an `Operand`."""
        return (
            *(self.weights, self.grads, self.exp_avgs, self.exp_avg_sqs),
            *(self.steps, self.copies, self.first_scales, self.second_scales),
        )

    @property
    def device(self) -> torch.device:
        """Where all of them lie."""
        return (self.weights or self.grads)[0].device

    @cached_property
    def numels(self) -> tuple[int, ...]:
        """Elements of each tensor, [T]; a caller that knows them may set them."""
        return tuple(map(Tensor.numel, self.weights or self.grads))

    @cached_property
    def grad_addresses(self) -> tuple[int, ...]:
        """Where the gradients lie, [T]."""
        return tuple(map(Tensor.data_ptr, self.grads))

    @cached_property
    def addresses(self) -> tuple[tuple[int, ...], ...]:
        """Where all others lie, [7, T]: `lists` without the gradients, with zeros for a list that is empty."""
        weights, _, *others = self.lists
        nothing = (0,) * len(self)
        return tuple([tuple(map(Tensor.data_ptr, each)) or nothing for each in (weights, *others)])

    @property
    def masters(self) -> list[Tensor]:
        """The weights that have copies."""
        return self.weights if self.copies else []

    @property
    def state(self) -> list[Tensor]:
        """Everything that the first pass writes to."""
        return [*self.exp_avgs, *self.exp_avg_sqs, *self.first_scales, *self.second_scales, *self.steps]
