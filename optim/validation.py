"""What Lamb accepts: every refusal names the parameter or setting, its value and the remedy."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

SWITCHES = ("bias_correction", "grad_averaging", "max_grad_norm", "skip_nonfinite", "backend")
"""Settings of the whole optimizer; a parameter group may not have its own."""


def check_group(group: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError for a parameter group's bad settings."""
    for name in ("lr", "eps", "weight_decay"):
        check_non_negative(name, group[name])
    _check_betas(group["betas"])
    for name in ("weight_norm_bounds", "trust_ratio_bounds"):
        _check_bounds(name, group[name])
    for name in SWITCHES:
        if name in group:
            raise ValueError(f"{name}={group[name]!r} in a parameter group: it is one for all; pass it to Lamb itself")


def check_non_negative(name: str, value: object) -> None:
    """Raise unless `value` is a finite number of 0 or more; a learning rate in a tensor is not read."""
    if isinstance(value, Tensor) and name == "lr" and value.numel() == 1:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; it must be a number")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}; it must be finite and 0 or more")


def _check_betas(betas: object) -> None:
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"betas is {betas!r}; it must be a pair of numbers")
    for beta in betas:
        check_non_negative("a value of betas", beta)
        if beta >= 1:
            raise ValueError(f"betas is {betas!r}; each must be in [0, 1)")


def _check_bounds(name: str, bounds: object) -> None:
    if bounds is None:
        return
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"{name} is {bounds!r}; it must be None or a pair (low, high)")
    low, high = bounds
    if math.isnan(low) or math.isnan(high) or low < 0 or low > high:
        raise ValueError(f"{name} is {bounds!r}; it must be (low, high) with 0 <= low <= high")


def check_parameter(name: str, parameter: Tensor) -> None:
    """Raise TypeError for a parameter that is not dense and real."""
    if parameter.layout is not torch.strided:
        raise TypeError(f"parameter {name!r} is {parameter.layout}; Lamb needs dense tensors: use to_dense()")
    if not parameter.is_floating_point():
        raise TypeError(
            f"parameter {name!r} is {parameter.dtype}; Lamb needs real floating-point tensors: "
            "use view_as_real() for a complex one, and leave integers out of the optimizer"
        )


def check_gradient(name: str, parameter: Tensor) -> None:
    """Raise if the gradient does not lie on its parameter element by element."""
    grad = parameter.grad
    if grad is None:
        return
    if grad.layout is not torch.strided:
        raise TypeError(f"the gradient of {name!r} is {grad.layout}; Lamb needs dense ones: build with sparse=False")
    placed, wanted = (tensor.placements if isinstance(tensor, DTensor) else None for tensor in (grad, parameter))
    if placed != wanted:
        raise ValueError(
            f"the gradient of {name!r} is placed {placed} but the parameter {wanted}; "
            "redistribute the gradient to the parameter's mesh and placements before step()"
        )
