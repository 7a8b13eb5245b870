"""What MXNet's optimizers accept here: every refusal names the argument, its value and the remedy."""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from optim.validation import check_non_negative

HALF = (torch.float16, torch.bfloat16)
"""What `multi_precision` keeps master weights for."""


def is_on(limit: float | None) -> TypeGuard[float]:
    """Return whether a clip or a bound is in force: None and 0 or less are off."""
    return limit is not None and limit > 0


def check_decay(**betas: float) -> None:
    """Raise unless each is in [0, 1)."""
    for name, beta in betas.items():
        check_non_negative(name, beta)
        if beta >= 1:
            raise ValueError(f"{name} is {beta!r}; it must be less than 1")


def check_numbers(**values: float | None) -> None:
    """Raise unless each is a number, which may be negative or infinite, or None."""
    for name, value in values.items():
        if value is None and name != "rescale_grad":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}; it must be a number")
        if math.isnan(value):
            raise ValueError(f"{name} is {value!r}; it must be a number")


def check_count(name: str, value: object, most: int | None = None) -> None:
    """Raise unless `value` is an integer from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    if value < 0 or (most is not None and value > most):
        raise ValueError(f"{name} is {value!r}; it must be " + ("0 or more" if most is None else f"from 0 to {most}"))


def check_call(indices: object, weights: object, grads: object, states: object) -> None:
    """Raise unless the lists match and every tensor in them can be updated."""
    given = {"indices": indices, "weights": weights, "grads": grads, "states": states}
    lists: list[Sequence[Any]] = []
    for name, value in given.items():
        if not isinstance(value, Sequence):
            raise TypeError(f"{name} is {type(value).__name__}; it must be a list with an entry for each tensor")
        lists.append(value)
    if len({len(value) for value in lists}) > 1:
        lengths = ", ".join(f"{name} {len(value)}" for name, value in zip(given, lists, strict=True))
        raise ValueError(f"the lists differ in length: {lengths}; each needs an entry for each tensor")
    if len(set(lists[0])) < len(lists[0]):
        raise ValueError(f"indices is {indices!r}; each must be there once: call again for a second update")
    for index, weight, grad, state in zip(*lists, strict=True):
        _check_tensor(index, weight, grad, state)


def _check_tensor(index: object, weight: Any, grad: Any, state: Any) -> None:
    for name, tensor in (("weight", weight), ("gradient", grad)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"the {name} of index {index!r} is {type(tensor).__name__}; it must be a torch tensor")
        if isinstance(tensor, DTensor):
            raise TypeError(f"the {name} of index {index!r} is a sharded DTensor; optim.Lamb updates such")
        if tensor.layout is not torch.strided:
            raise TypeError(f"the {name} of index {index!r} is {tensor.layout}; pass a dense one: to_dense()")
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise TypeError(f"the state of index {index!r} is {type(state).__name__}; pass what create_state() returned")
    has_master = not isinstance(state[1], Tensor)
    _check_dtype(index, weight, has_master)
    master, (mean, var) = state if has_master else (weight, state)
    for name, tensor in (("gradient", grad), ("weight32", master), ("mean", mean), ("var", var)):
        if tensor.shape != weight.shape or tensor.device != weight.device:
            raise ValueError(
                f"the {name} of index {index!r} is {tuple(tensor.shape)} on {tensor.device} but its weight "
                f"{tuple(weight.shape)} on {weight.device}; they must match: is it another tensor's?"
            )


def _check_dtype(index: object, weight: Tensor, has_master: bool) -> None:
    if weight.dtype is torch.float32 or (has_master and weight.dtype in HALF):
        return
    remedy = "set multi_precision=True before its state is created" if weight.dtype in HALF else "make it float32"
    raise TypeError(f"the weight of index {index!r} is {weight.dtype}; {remedy}")
