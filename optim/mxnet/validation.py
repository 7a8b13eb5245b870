"""What MXNet's optimizers accept here: every refusal names the argument, its value and the remedy."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from optim.validation import check_non_negative, shares_elements

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
        check_number(name, value)


def check_number(name: str, value: object) -> None:
    """Raise unless `value` is a number, NumPy's included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; it must be a number")
    if math.isnan(value):
        raise ValueError(f"{name} is {value!r}; it must be a number")


def check_count(name: str, value: object, least: int = 0, most: int | None = None) -> None:
    """Raise unless `value` is an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    if not least <= int(value) <= (math.inf if most is None else most):
        wanted = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; it must be {wanted}")


def check_switches(**values: object) -> None:
    """Raise unless each is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; it must be True or False")


def check_mapping(name: str, value: object) -> None:
    """Raise unless `value` is a dict or the like."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {value!r}; it must be a dict by index or name")


def check_scheduler(value: object, *, has_rate: bool) -> None:
    """Raise unless `value` is None or can be called for a rate; beside a learning rate it needs a base rate, too."""
    if value is None:
        return
    if not callable(value):
        raise TypeError(f"lr_scheduler is {value!r}; it must be a callable that returns a rate")
    if has_rate and not hasattr(value, "base_lr"):
        raise TypeError(f"lr_scheduler is {value!r}, whose base_lr learning_rate would replace; set learning_rate=None")


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
    if shares_elements(weight):
        raise TypeError(
            f"the weight of index {index!r} has elements that share memory, as expand() makes them: clone it"
        )
    master, mean, var = _unpacked(index, weight, state)
    _check_dtype(index, weight, has_master=master is not weight)
    for name, tensor in (("gradient", grad), ("weight32", master), ("mean", mean), ("var", var)):
        if tensor.shape != weight.shape or tensor.device != weight.device:
            raise ValueError(
                f"the {name} of index {index!r} is {tuple(tensor.shape)} on {tensor.device} but its weight "
                f"{tuple(weight.shape)} on {weight.device}; they must match: is it another tensor's?"
            )
        if tensor.dtype is not torch.float32 and not (name == "gradient" and tensor.dtype in HALF):
            raise TypeError(f"the {name} of index {index!r} is {tensor.dtype}; make it float32")


def _unpacked(index: object, weight: Tensor, state: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is updated, the weight itself or its master, and both moments."""
    match state:
        case (Tensor() as mean, Tensor() as var):
            return weight, mean, var
        case (Tensor() as master, (Tensor() as mean, Tensor() as var)):
            return master, mean, var
    raise TypeError(
        f"the state of index {index!r} is {type(state).__name__}, and neither (mean, var) nor (weight32, (mean, var)); "
        "pass what create_state_multi_precision() returned"
    )


def _check_dtype(index: object, weight: Tensor, *, has_master: bool) -> None:
    if weight.dtype is torch.float32 or (has_master and weight.dtype in HALF):
        return
    remedy = "set multi_precision=True before its state is created" if weight.dtype in HALF else "make it float32"
    raise TypeError(f"the weight of index {index!r} is {weight.dtype}; {remedy}")
