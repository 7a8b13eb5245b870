"""Gradients of another dtype than their parameter, as mixed precision leaves them."""

import torch
from torch import Tensor


def set_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Let a parameter have a gradient of any dtype.

    torch checks the dtype of a gradient that is assigned: 2.9 always, later releases unless `grad_dtype` is None. No
    release checks it where the data of a gradient is replaced, which is how FSDP1 keeps gradients narrow.
    """
    if gradient.dtype is parameter.dtype:
        parameter.grad = gradient
    else:
        parameter.grad = torch.empty_like(parameter)
        parameter.grad.data = gradient


def accumulate_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Let autograd leave the gradient, in its dtype; only where torch has `grad_dtype`."""
    parameter.grad_dtype = gradient.dtype
    (parameter * gradient).sum().backward()  # type: ignore[no-untyped-call]


WAYS = [set_gradient, accumulate_gradient] if hasattr(Tensor, "grad_dtype") else [set_gradient]
"""How a gradient of another dtype comes about with this torch."""
