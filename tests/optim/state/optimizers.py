"""Small optimizers whose state is saved and loaded, and the states that other optimizers would have."""

from typing import Any

import torch
from torch import Tensor, nn

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors

SHAPES = [(13, 29), (7,), (300, 3)]


def make(dtype: torch.dtype = torch.float64, **switches: Any) -> Lamb:
    return Lamb([nn.Parameter(w) for w in make_tensors(SHAPES, 0, dtype)], lr=0.05, **switches)


def parameters_of(optimizer: Lamb) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def take_steps(optimizer: Lamb, first: int, last: int) -> None:
    for step in range(first, last + 1):
        parameters = parameters_of(optimizer)
        for parameter, grad in zip(parameters, make_tensors(SHAPES, step), strict=True):
            parameter.grad = grad.to(parameter.dtype)
        optimizer.step()


def foreign_state(oracle: Oracle, **group: Any) -> dict[str, Any]:
    """Return the oracle's state as apex's FusedLAMB and timm's Lamb lay it out: the step count is the group's."""
    moments = zip(oracle.exp_avgs, oracle.exp_avg_sqs, strict=True)
    return {
        "state": {i: {"exp_avg": m.clone(), "exp_avg_sq": v.clone()} for i, (m, v) in enumerate(moments)},
        # timm keeps the count in a tensor, apex in a number
        "param_groups": [{"step": torch.tensor(float(oracle.steps[0])), "params": [0, 1, 2], **group}],
    }


APEX = {"bias_correction": True, "betas": (0.9, 0.999), "weight_decay": 0.02, "grad_averaging": True}
TIMM = {"trust_clip": False, "always_adapt": True, "caution": False, "decoupled_decay": False}
