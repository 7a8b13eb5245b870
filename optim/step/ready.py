"""What a step finds in its optimizer: groups, states, and the tensors that have a gradient."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from optim.kernels.operands import Operand
from optim.kernels.operators import Kernels
from optim.kernels.settings import Settings
from optim.sharding import Groups, local_part

Pick = Callable[[Operand], Kernels]
"""Says which kernels step a tensor."""

STATE = ("exp_avg", "exp_avg_sq", "step")
OPTIONAL = ("master", "exp_avg_scale", "exp_avg_sq_scale")


class Step(NamedTuple):
    """What a step finds in its optimizer."""

    groups: Sequence[Mapping[str, Any]]
    state: Mapping[Any, Mapping[str, Any]]
    settings: list[Settings]
    """Of each group."""
    pick: Pick


class Ready(NamedTuple):
    """A tensor that has a gradient, with what a step needs beside it."""

    group: int
    """Number of its parameter group."""
    name: str
    parameter: Tensor
    grad: Tensor
    """Has the parameter's placements."""
    groups: Groups
    """The process groups over which it is sharded."""
    state: Mapping[str, Any]

    def operand(self) -> Operand:
        """Return what this rank holds of it."""
        own = local_part(self.parameter)
        state = {key: local_part(self.state[key]) for key in (*STATE, *OPTIONAL) if key in self.state}
        return Operand(
            state.get("master", own),
            local_part(self.grad),
            state["exp_avg"],
            state["exp_avg_sq"],
            state["step"],
            own if "master" in state else None,
            state.get("exp_avg_scale"),
            state.get("exp_avg_sq_scale"),
        )


def settings_of(group: Mapping[str, Any], *, bias_correction: bool, grad_averaging: bool) -> Settings:
    """Return the settings that all tensors of a parameter group have."""
    beta1, beta2 = group["betas"]
    adapted = group["layer_adaptation"]
    weight_low, weight_high = group["weight_norm_bounds"] or (0.0, math.inf)
    ratio_low, ratio_high = group["trust_ratio_bounds"] or (0.0, math.inf)
    return Settings(
        beta1,
        beta2,
        1 - beta1 if grad_averaging else 1.0,
        group["eps"],
        group["weight_decay"],
        weight_low,
        weight_high,
        ratio_low,
        ratio_high,
        bias_correction,
        group["weight_decay"] != 0 if adapted == "decayed" else adapted,
    )
