"""The operators of a step: what they take, what they change, and who computes them.

PyTorch's dispatcher picks the implementation: one registered for the device of the tensors where there is one, else
plain PyTorch. All lists hold local tensors of one device; T is their length. A call has one dtype of weights, one of
gradients and one format of moments.

* `sum_squares(tensors)`: Σx² of each tensor, float64 [T].
* `lamb_clip(squares, max_grad_norm, skip_nonfinite)`: float64 [3] from sums of squares [n]: the norm of all gradients,
  the factor that clips it to `max_grad_norm` (0 is off), and 1 if the step is to be skipped.
* `lamb_update(...)`: the first pass. Advances steps and moments in place and returns Σw² and Σu² of what this rank
  holds, float64 [2, T]. Where `clip` says to skip, nothing changes, to the bit.
* `lamb_ratio(sums, clip, lr, settings)`: ‖w‖, ‖u‖, trust ratio and scale = ratio·lr, float64 [4, T], from the sums of
  whole tensors, [2, T]; the scale of a skipped step is 0.
* `lamb_apply(...)`: the second pass. `w -= scale·u` with `scale` float64 [T]; a scale of 0 changes no bit.
* `lamb_step(...)`: update, ratio and apply for tensors of which this rank holds all, so that nothing has to be added up
  between them, and an implementation may finish one while it is in cache. Returns what `lamb_ratio` does.

`copies` are empty, or half-precision parameters that get the new value of their float32 master weights; gradients then
have their dtype. `exp_avgs` and `exp_avg_sqs` have the weights' dtype or one of the formats of `kernels.moments`, and
`scales`, empty else, are those of the 8-bit one: T for the first moments, then T for the second. `steps` are float32
scalars. `settings`, float64 [T, 11], always lies on the host (`kernels.settings`); `clip` and `lr`, float64 [T], lie on
the device, so no pass waits for the host.

u is an argument of neither pass: it follows from weight, moments and step as they are stored, and an implementation
that computes it twice stores it nowhere.
"""

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from . import eager
from .cpu import call as cpu
from .routing import Backend

_MOMENTS = "Tensor(a!)[] exp_avgs, Tensor(b!)[] exp_avg_sqs, Tensor(c!)[] scales, Tensor(d!)[] steps"
_SCHEMAS = {
    "sum_squares": "(Tensor[] tensors) -> Tensor",
    "lamb_clip": "(Tensor squares, float max_grad_norm, bool skip_nonfinite) -> Tensor",
    "lamb_update": f"(Tensor[] grads, Tensor[] weights, {_MOMENTS}, Tensor clip, Tensor settings) -> Tensor",
    "lamb_ratio": "(Tensor sums, Tensor clip, Tensor lr, Tensor settings) -> Tensor",
    "lamb_apply": "(Tensor(a!)[] weights, Tensor(b!)[] copies, Tensor[] exp_avgs, Tensor[] exp_avg_sqs, "
    "Tensor[] scales, Tensor[] steps, Tensor scale, Tensor settings) -> ()",
    "lamb_step": f"(Tensor[] grads, Tensor(e!)[] weights, Tensor(f!)[] copies, {_MOMENTS}, Tensor clip, Tensor lr, "
    "Tensor settings) -> Tensor",
}


class Operators(Protocol):
    """The six operators, whoever computes them."""

    sum_squares: Callable[..., Tensor]
    lamb_clip: Callable[..., Tensor]
    lamb_update: Callable[..., Tensor]
    lamb_ratio: Callable[..., Tensor]
    lamb_apply: Callable[..., None]
    lamb_step: Callable[..., Tensor]


def _float64(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device=like.device)


_SHAPES: dict[str, Callable[..., Tensor | None]] = {
    "sum_squares": lambda tensors: _float64(tensors[0], len(tensors)),
    "lamb_clip": lambda squares, *_: _float64(squares, 3),
    "lamb_update": lambda grads, *_: _float64(grads[0], 2, len(grads)),
    "lamb_ratio": lambda sums, *_: _float64(sums, 4, sums.shape[1]),
    "lamb_apply": lambda *_: None,
    "lamb_step": lambda grads, *_: _float64(grads[0], 4, len(grads)),
}
_ON_CPU = ("sum_squares", "lamb_update", "lamb_apply", "lamb_step")


def _on_cuda(name: str) -> Callable[..., Any]:
    """Return an operator that is imported when the first tensor on CUDA comes: it needs Triton."""

    def operator(*arguments: Any) -> Any:
        return getattr(importlib.import_module(".cuda.launch", __package__), name)(*arguments)

    return operator


for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"bigbatch::{_name}", _schema)
    torch.library.impl(f"bigbatch::{_name}", "CompositeExplicitAutograd", getattr(eager, _name))
    torch.library.impl(f"bigbatch::{_name}", "CUDA", _on_cuda(_name))
    torch.library.register_fake(f"bigbatch::{_name}", _SHAPES[_name])
for _name in _ON_CPU:
    torch.library.impl(f"bigbatch::{_name}", "CPU", getattr(cpu, _name))

BACKENDS: dict[str, Operators] = {
    "auto": cast(Operators, torch.ops.bigbatch),
    "eager": cast(Operators, eager),
}
"""What `Lamb(backend=...)` may be: the dispatcher's choice, or plain PyTorch whatever the device."""


def backend(device: str | torch.device) -> Backend:
    """Return who computes the operators of `Lamb(backend="auto")` on a device, and why."""
    kind = torch.device(device).type
    if kind not in {"cpu", "cuda"}:
        return Backend("eager", f"there is no kernel for {kind}")
    answer: Backend = importlib.import_module({"cpu": ".cpu.call", "cuda": ".cuda.launch"}[kind], __package__).backend()
    return answer
