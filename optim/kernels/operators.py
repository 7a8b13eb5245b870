"""The operators of a step: what they take, what they change, and who computes them.

`torch.ops.bigbatch` has the same operators on flat lists, for PyTorch's dispatcher: `scales` are those of the first
moments, then those of the second. `Lamb` needs it for tensors that are not plain ones, such as those of FakeTensorMode.

Shapes: T tensors in a call, n sums of squares; `sums_2T` is [2, T]. A list in the plural has T tensors.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from . import eager, foreach
from .cpu import call as cpu
from .operands import Backend, Memory, Operand, Operands
from .settings import float_of

_OPS = torch.ops.bigbatch


class Kernels(Protocol):
    """A backend: a module with these functions.

    All tensors are local and lie on one device, `clip_3` and `lr_T` too, both float64, so no pass waits for the host.
    u is an argument of neither pass: it follows from weight, moments and step as they are stored, and a backend that
    computes it twice stores it nowhere.
    """

    def backend(self) -> Backend:
        """Return who this is."""

    def reads(self, tensor: Tensor, /) -> bool:
        """Return whether it adds up the squares of a tensor."""

    def takes(self, operand: Operand, /) -> bool:
        """Return whether it steps a tensor."""

    def sum_squares(self, operands: Operands, /) -> Tensor:
        """Return Σx² of each gradient, float64 [T]."""

    def lamb_clip(self, squares_n: Tensor, max_grad_norm: float, skip_nonfinite: bool, /) -> Tensor:
        """Return the norm of all gradients, the factor on them, and 1 if the step is to be skipped, float64 [3].

        `squares_n`, [n], add up to that norm's square. The factor clips it to `max_grad_norm`; 0 is off.
        """

    def lamb_update(self, operands: Operands, clip_3: Tensor, /) -> Tensor:
        """Advance steps and moments in place; return Σw² and Σu² of what this rank holds, float64 [2, T].

        A copy should be its weight, rounded. One that is not was written by somebody else; it first becomes the weight.
        Where `clip_3` says to skip, not a bit changes.
        """

    def lamb_ratio(self, operands: Operands, sums_2T: Tensor, clip_3: Tensor, lr_T: Tensor, /) -> Tensor:
        """Return ‖w‖, ‖u‖, trust ratio and scale = ratio·lr, float64 [4, T], from the sums of full tensors.

        The scale of a skipped step is 0. Only the settings of the operands are read.
        """

    def lamb_apply(self, operands: Operands, scale_T: Tensor, /) -> None:
        """Subtract scale·u from each weight, and write its copy; where the scale is 0, not a bit changes."""

    def lamb_step(self, operands: Operands, clip_3: Tensor, lr_T: Tensor, /) -> Tensor:
        """Update, ratio and apply for tensors that no other rank has a part of; return what `lamb_ratio` does.

        Nothing has to be added up between them, so a backend may finish one tensor while it is in cache.
        """


def _fused(device: torch.device) -> Kernels | None:
    """Return the kernels of a device; those of CUDA, and Triton, are imported when the first CUDA tensor comes."""
    if device.type == "cuda":
        from .cuda import launch

        return launch
    if device.type == "cpu":
        return cpu
    return None


def _fused_or_plain(device: torch.device, fits: Callable[[Kernels], bool]) -> Kernels:
    fused = _fused(device)
    return fused if fused is not None and fits(fused) else _plain(device, fits)


def _plain(device: torch.device, fits: Callable[[Kernels], bool]) -> Kernels:
    """Return plain PyTorch: in blocks that stay in the cache of a CPU, elsewhere by whole tensors if it can."""
    return foreach if device.type != "cpu" and fits(foreach) else eager


def fastest(operand: Operand) -> Kernels:
    """Return which kernels step a tensor of `Lamb(backend="auto")`."""
    if type(operand.weight) not in {Tensor, torch.nn.Parameter}:
        return _DISPATCHED
    return _fused_or_plain(operand.weight.device, lambda kernels: kernels.takes(operand))


def plain(operand: Operand) -> Kernels:
    """Return which kernels step a tensor of `Lamb(backend="eager")`."""
    return _plain(operand.weight.device, lambda kernels: kernels.takes(operand))


BACKENDS: dict[str, Callable[[Operand], Kernels]] = {"auto": fastest, "eager": plain}
"""The values of `Lamb(backend=...)`, and which kernels then step a tensor."""


def backend(device: str | torch.device) -> Backend:
    """Return who computes the operators of `Lamb(backend="auto")` on a device, and why."""
    fused = _fused(torch.device(device))
    return fused.backend() if fused else Backend("eager", f"there is no kernel for {torch.device(device).type}")


class Dispatched:
    """The operators through PyTorch's dispatcher."""

    def backend(self) -> Backend:
        """Return that this is decided in each call."""
        return Backend("dispatched", "PyTorch's dispatcher picks it for each call")

    def reads(self, tensor: Tensor) -> bool:
        """Return True: the dispatcher takes any tensor."""
        return eager.reads(tensor)

    def takes(self, operand: Operand) -> bool:
        """Return True: the dispatcher takes any tensor."""
        return eager.takes(operand)

    def sum_squares(self, operands: Operands) -> Tensor:
        """Flatten, and call the operator."""
        return cast(Tensor, _OPS.sum_squares(operands.grads))

    def lamb_clip(self, squares_n: Tensor, max_grad_norm: float, skip_nonfinite: bool) -> Tensor:
        """Call the operator."""
        return cast(Tensor, _OPS.lamb_clip(squares_n, max_grad_norm, skip_nonfinite))

    def lamb_update(self, operands: Operands, clip_3: Tensor) -> Tensor:
        """Flatten, and call the operator."""
        lists = operands.grads, operands.weights, operands.copies, *_flat_moments(operands)
        return cast(Tensor, _OPS.lamb_update(*lists, clip_3, operands.settings))

    def lamb_ratio(self, operands: Operands, sums_2T: Tensor, clip_3: Tensor, lr_T: Tensor) -> Tensor:
        """Flatten, and call the operator."""
        return cast(Tensor, _OPS.lamb_ratio(sums_2T, clip_3, lr_T, operands.settings))

    def lamb_apply(self, operands: Operands, scale_T: Tensor) -> None:
        """Flatten, and call the operator."""
        lists = operands.weights, operands.copies, *_flat_moments(operands)
        _OPS.lamb_apply(*lists, scale_T, operands.settings)

    def lamb_step(self, operands: Operands, clip_3: Tensor, lr_T: Tensor) -> Tensor:
        """Flatten, and call the operator."""
        lists = operands.grads, operands.weights, operands.copies, *_flat_moments(operands)
        return cast(Tensor, _OPS.lamb_step(*lists, clip_3, lr_T, operands.settings))


_DISPATCHED = Dispatched()


def _flat_moments(operands: Operands) -> tuple[list[Tensor], ...]:
    scales = [*operands.first_scales, *operands.second_scales]
    return operands.exp_avgs, operands.exp_avg_sqs, scales, operands.steps


_MOMENTS = "Tensor(a!)[] exp_avgs, Tensor(b!)[] exp_avg_sqs, Tensor(c!)[] scales, Tensor(d!)[] steps"
_READ_MOMENTS = "Tensor[] exp_avgs, Tensor[] exp_avg_sqs, Tensor[] scales, Tensor[] steps"
_WRITTEN = "Tensor(e!)[] weights, Tensor(f!)[] copies"
_GRAPHS: list[object] = []
"""What CUDA graphs that captured a flat operator may read. It is never freed: nobody is told when a graph is gone."""

Function = TypeVar("Function", bound=Callable[..., object])


def _operator(schema: str, fake: Callable[..., Tensor | None]) -> Callable[[Function], Function]:
    """Register a function as an operator on all devices; `fake` returns a tensor of its result's shape."""

    def register(function: Function) -> Function:
        name = f"bigbatch::{function.__name__}"
        torch.library.define(name, schema)
        torch.library.impl(name, "CompositeExplicitAutograd", function)
        torch.library.register_fake(name, fake)
        return function

    return register


def _float64(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=float_of(like.device), device=like.device)


def _operands(
    grads: list[Tensor], weights: list[Tensor], copies: list[Tensor], *rest: list[Tensor], settings_T11: Tensor
) -> tuple[Kernels, Operands]:
    """Return flat lists as operands, and the kernels that take them: plain PyTorch if any tensor needs it."""
    exp_avgs, exp_avg_sqs, scales, steps = rest
    split = scales[: len(weights)], scales[len(weights) :]
    operands = Operands(weights, grads, exp_avgs, exp_avg_sqs, steps, copies, *split, settings_T11, Memory(_GRAPHS))
    return _fused_or_plain(operands.device, lambda kernels: all(map(kernels.takes, operands.each()))), operands


@_operator("(Tensor[] tensors) -> Tensor", lambda tensors: _float64(tensors[0], len(tensors)))
def sum_squares(tensors: list[Tensor]) -> Tensor:
    """Return Σx² of each tensor, float64 [T]."""
    kernels = _fused_or_plain(tensors[0].device, lambda kernels: all(map(kernels.reads, tensors)))
    return kernels.sum_squares(Operands(grads=tensors, memory=Memory(_GRAPHS)))


@_operator(
    "(Tensor squares, float max_grad_norm, bool skip_nonfinite) -> Tensor", lambda squares_n, *_: _float64(squares_n, 3)
)
def lamb_clip(squares_n: Tensor, max_grad_norm: float, skip_nonfinite: bool) -> Tensor:
    """Return the norm of all gradients, the factor that clips it, and whether to skip, float64 [3]."""
    kernels = _fused_or_plain(squares_n.device, lambda kernels: kernels.reads(squares_n))
    return kernels.lamb_clip(squares_n, max_grad_norm, skip_nonfinite)


@_operator(
    f"(Tensor[] grads, Tensor(e!)[] weights, Tensor[] copies, {_MOMENTS}, Tensor clip, Tensor settings) -> Tensor",
    lambda grads, *_: _float64(grads[0], 2, len(grads)),
)
def lamb_update(grads: list[Tensor], weights: list[Tensor], copies: list[Tensor], *rest: Any) -> Tensor:
    """Advance steps and moments in place; return Σw² and Σu², float64 [2, T]."""
    *moments, clip_3, settings_T11 = rest
    kernels, operands = _operands(grads, weights, copies, *moments, settings_T11=settings_T11)
    return kernels.lamb_update(operands, clip_3)


@_operator(
    "(Tensor sums, Tensor clip, Tensor lr, Tensor settings) -> Tensor",
    lambda sums_2T, *_: _float64(sums_2T, 4, sums_2T.shape[1]),
)
def lamb_ratio(sums_2T: Tensor, clip_3: Tensor, lr_T: Tensor, settings_T11: Tensor) -> Tensor:
    """Return ‖w‖, ‖u‖, trust ratio and scale, float64 [4, T]."""
    kernels = _fused_or_plain(sums_2T.device, lambda kernels: kernels.reads(sums_2T))
    return kernels.lamb_ratio(Operands(settings=settings_T11, memory=Memory(_GRAPHS)), sums_2T, clip_3, lr_T)


@_operator(f"({_WRITTEN}, {_READ_MOMENTS}, Tensor scale, Tensor settings) -> ()", lambda *_: None)
def lamb_apply(weights: list[Tensor], copies: list[Tensor], *rest: Any) -> None:
    """Subtract scale·u from each weight, in place."""
    *moments, scale_T, settings_T11 = rest
    kernels, operands = _operands(copies or weights, weights, copies, *moments, settings_T11=settings_T11)
    kernels.lamb_apply(operands, scale_T)


@_operator(
    f"(Tensor[] grads, {_WRITTEN}, {_MOMENTS}, Tensor clip, Tensor lr, Tensor settings) -> Tensor",
    lambda grads, *_: _float64(grads[0], 4, len(grads)),
)
def lamb_step(grads: list[Tensor], weights: list[Tensor], copies: list[Tensor], *rest: Any) -> Tensor:
    """Take the whole step; return what `lamb_ratio` does."""
    *moments, clip_3, lr_T, settings_T11 = rest
    kernels, operands = _operands(grads, weights, copies, *moments, settings_T11=settings_T11)
    return kernels.lamb_step(operands, clip_3, lr_T)
