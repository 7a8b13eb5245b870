"""The operators of a step: what they take, what they change, and who computes them.

PyTorch's dispatcher picks the implementation: one registered for the device of the tensors where there is one, else
plain PyTorch. All lists hold local tensors of one device; T is their length and every list has it.

* `sum_squares(tensors)`: Σx² of each tensor, float64 [T].
* `lamb_update(...)`: the first pass. Advances the steps and both moments in place, with `clip` (float64 scalar) on the
  gradients, and returns Σw² and Σu² of what this rank holds, float64 [2, T]. Where `skip` (bool scalar) holds, nothing
  changes, to the bit.
* `lamb_apply(...)`: the second pass. `w -= scale·u` with `scale` float64 [T]; a scale of 0 changes no bit.
* `lamb_step(...)`: both passes for tensors of which this rank holds all, so that nothing has to be added up between
  them, and an implementation may finish one while it is in cache. Returns ‖w‖, ‖u‖ and the trust ratio, float64 [3, T].

Scalars that a step computes are tensors on the device, so no pass waits for the host. u is an argument of neither
pass: it follows from weight, moments and step, and an implementation that computes it twice stores it nowhere. Steps
are float32 scalars.
"""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

from .kernels import cpu, eager

_SETTINGS = "float eps, float weight_decay, bool bias_correction"
_MOMENTS = "Tensor(a!)[] exp_avgs, Tensor(b!)[] exp_avg_sqs, Tensor(c!)[] steps, Tensor clip, Tensor skip"
_BETAS = "float beta1, float beta2, float beta3"
_SCHEMAS = {
    "sum_squares": "(Tensor[] tensors) -> Tensor",
    "lamb_update": f"(Tensor[] grads, Tensor[] weights, {_MOMENTS}, {_BETAS}, {_SETTINGS}) -> Tensor",
    "lamb_apply": "(Tensor(a!)[] weights, Tensor[] exp_avgs, Tensor[] exp_avg_sqs, Tensor[] steps, Tensor scale, "
    f"float beta1, float beta2, {_SETTINGS}) -> ()",
    "lamb_step": f"(Tensor[] grads, Tensor(d!)[] weights, {_MOMENTS}, Tensor lr, {_BETAS}, {_SETTINGS}, "
    "bool layer_adaptation, float[] weight_norm_bounds, float[] trust_ratio_bounds) -> Tensor",
}


class Operators(Protocol):
    """The four operators, whoever computes them."""

    sum_squares: Callable[..., Tensor]
    lamb_update: Callable[..., Tensor]
    lamb_apply: Callable[..., None]
    lamb_step: Callable[..., Tensor]


def _sum_squares_shape(tensors: list[Tensor]) -> Tensor:
    return torch.empty(len(tensors), dtype=torch.float64, device=tensors[0].device)


def _lamb_update_shape(grads: list[Tensor], *_: object) -> Tensor:
    return torch.empty(2, len(grads), dtype=torch.float64, device=grads[0].device)


def _lamb_apply_shape(*_: object) -> None:
    return None


def _lamb_step_shape(grads: list[Tensor], *_: object) -> Tensor:
    return torch.empty(3, len(grads), dtype=torch.float64, device=grads[0].device)


for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"bigbatch::{_name}", _schema)
    torch.library.impl(f"bigbatch::{_name}", "CompositeExplicitAutograd", getattr(eager, _name))
    torch.library.impl(f"bigbatch::{_name}", "CPU", getattr(cpu, _name))
    torch.library.register_fake(f"bigbatch::{_name}", globals()[f"_{_name}_shape"])

BACKENDS: dict[str, Operators] = {
    "auto": cast(Operators, torch.ops.bigbatch),
    "eager": cast(Operators, eager),
}
"""What `Lamb(backend=...)` may be: the dispatcher's choice, or plain PyTorch whatever the device."""


def backend(device: str | torch.device) -> cpu.Backend:
    """Return who computes the operators of `Lamb(backend="auto")` on a device, and why."""
    if torch.device(device).type == "cpu":
        return cpu.backend()
    return cpu.Backend("eager", f"no kernel is registered for {torch.device(device).type}")
